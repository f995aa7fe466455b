// castellan dev: everything at once, a live view, and what to type.
import { systemClock } from '../../runtime/clock.ts'
import { every } from '../../runtime/lifecycle.ts'
import type { Context, ExitCode } from '../context.ts'
import { writeDevAddress } from './address.ts'
import { type DevMesh, startMesh } from './mesh.ts'
import type { Proxies } from './proxies.ts'
import { createScreen, type Screen } from './screen.ts'
import { identityOf, services } from './stage.ts'
import { followStatus, type StatusFeed } from './status.ts'
import { startTraffic, type Traffic } from './traffic.ts'
import { picture, trafficLine } from './view.ts'

const svidLifetime = '40s'
// outlives an authority that you stop for some minutes
const agentLifetime = '10m'

function instructions({ stage, toPayments, proxies }: DevMesh): string {
  return `castellan is running: an authority, an agent, two services behind ${proxies.many}. Certificates live ${svidLifetime}.

try, in another terminal:
  bin/castellan call frontend payments GET /balance     allowed: 200 and the server's SPIFFE ID
  bin/castellan call frontend payments POST /admin      denied: 403, and why
  bin/castellan entry list                              who gets which identity
edit ${stage.policyFile}
  and save: in force within a second; a broken edit is refused with its line
frontend's way to payments, for curl: ${toPayments}/balance
logs: ${stage.path('log')}    stop: Ctrl-C
`
}

const isAway = ({ withoutAgent }: Proxies, traffic: Traffic) =>
  `agent AWAY; ${withoutAgent}\n\n${trafficLine(traffic)}`

interface Followed {
  readonly proxies: Proxies
  readonly feed: StatusFeed
  readonly traffic: Traffic
}

async function decisionsOf(feed: StatusFeed) {
  const [denials, flows] = await Promise.all([feed.denials(3), feed.flows()])
  return { denials, flows }
}

/** One look at everything, once a second. */
function follow(context: Context, screen: Screen, { proxies, feed, traffic }: Followed) {
  return every(systemClock, 1000, async () => {
    const status = feed.current()
    const decided = status && (await decisionsOf(feed).catch(() => undefined))
    if (status === undefined || decided === undefined) {
      screen.show(isAway(proxies, traffic), 'away')
      return
    }
    const identities = status.identities.map(({ spiffeId, serial, rotations }) => ({
      spiffeId,
      serial,
      rotations: Number(rotations),
    }))
    if (context.isJson) {
      const { sent, denied, failed } = traffic
      context.process.stdout.write(`${JSON.stringify({ sent, denied, failed, identities })}\n`)
      return
    }
    const news = [
      ...identities.map(({ serial }) => serial),
      status.policyVersion,
      ...decided.denials.map(({ at }) => at),
      status.connected,
    ]
    screen.show(picture(status, { traffic, ...decided, now: systemClock.now() }), news.join())
  })
}

/** Runs until Ctrl-C or kill; leaves no process and no file. */
export async function demonstrate(context: Context, proxies: Proxies): Promise<ExitCode> {
  const { process, signal, isJson } = context
  const screen = createScreen(process.stdout, { isJson })
  const { say } = screen
  try {
    await using mesh = await startMesh({
      svidLifetime,
      agentLifetime,
      proxies,
      signal,
      onEnd(who, how, args) {
        const again = who === 'authority' || who === 'agent'
        const next = again ? `; start it again: bin/castellan ${args.join(' ')}` : ''
        say(`\n${who} has ended (${how})${next}\n\n`)
      },
      onProgress: (what) => say(`${what} …\n`),
      onEvent(who, event) {
        if (event.msg === 'policies refused; the version in force stays') {
          say(
            `\npolicy refused, the one before it stays in force:\n${JSON.stringify(event.problems, null, 2)}\n\n`,
          )
        }
        if (event.level === 'error' && who === 'agent') say(`\nagent: ${String(event.msg)}\n\n`)
      },
    })
    await using feed = followStatus(mesh.adminSocket)
    await using traffic = startTraffic(mesh.toPayments, '/balance', {
      clock: systemClock,
      lanes: 2,
      pause: 100,
    })
    using _ = writeDevAddress(process.env, {
      pid: process.pid,
      caSocket: mesh.caSocket,
      adminSocket: mesh.adminSocket,
      calls: { frontend: { payments: mesh.toPayments } },
      identities: Object.fromEntries(services.map((service) => [service, identityOf(service)])),
    })
    say(`\n${instructions(mesh)}\n`)
    await using view = follow(context, screen, { proxies, feed, traffic })
    const stopped = Promise.withResolvers<void>()
    if (signal.aborted) stopped.resolve()
    signal.addEventListener('abort', () => stopped.resolve(), { once: true })
    await Promise.race([stopped.promise, view.done])
    say('\nstopping …\n')
    return 0
  } catch (error) {
    if (signal.aborted) return 0
    throw error
  }
}
