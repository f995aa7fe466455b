// castellan dev: everything at once, a live view, and what to type.
import { systemClock } from '../../runtime/clock.ts'
import { every } from '../../runtime/lifecycle.ts'
import type { Context, ExitCode } from '../context.ts'
import { writeDevAddress } from './address.ts'
import { type DevMesh, startMesh } from './mesh.ts'
import { identityOf, services } from './stage.ts'
import { followStatus, type StatusFeed } from './status.ts'
import { startTraffic, type Traffic } from './traffic.ts'
import { picture } from './view.ts'

const svidLifetime = '40s'
// outlives an authority that you stop for some minutes
const agentLifetime = '10m'

function instructions({ stage, toPayments }: DevMesh): string {
  return `castellan is running: an authority, an agent, two services behind sidecars. Certificates live ${svidLifetime}.

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

/** On a terminal the picture is redrawn in place; elsewhere a line is printed when something happened. */
function show(context: Context, feed: StatusFeed, traffic: Traffic) {
  const { stdout } = context.process
  let lines = 0
  let told = ''
  return every(systemClock, 1000, async () => {
    const status = feed.current()
    if (status === undefined) return
    const denials = await feed.denials(3)
    if (context.isJson) {
      stdout.write(
        `${JSON.stringify({ sent: traffic.sent, failed: traffic.failed, identities: status.identities.map(({ spiffeId, serial, rotations }) => ({ spiffeId, serial, rotations: Number(rotations) })) })}\n`,
      )
      return
    }
    const text = picture(status, { traffic, denials, now: systemClock.now() })
    if (stdout.isTTY === true) {
      stdout.write(`${lines > 0 ? `\u001b[${lines}A\u001b[0J` : ''}${text}\n`)
      lines = text
        .split('\n')
        .reduce(
          (sum, line) => sum + Math.max(1, Math.ceil(line.length / (stdout.columns ?? 80))),
          0,
        )
      return
    }
    const news = JSON.stringify([
      status.identities.map(({ serial }) => serial),
      status.policyVersion,
      denials.map(({ at }) => String(at)),
      status.connected,
    ])
    if (news !== told) stdout.write(`${text}\n\n`)
    told = news
  })
}

/** Runs until Ctrl-C or kill; leaves no process and no file. */
export async function demonstrate(context: Context): Promise<ExitCode> {
  const { process, signal, isJson } = context
  const say = (text: string) => {
    if (!isJson) process.stdout.write(text)
  }
  try {
    await using mesh = await startMesh({
      svidLifetime,
      agentLifetime,
      signal,
      onProgress: (what) => say(`starting ${what} …\n`),
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
    await using __ = show(context, feed, traffic)
    await new Promise<void>((resolve) => {
      if (signal.aborted) resolve()
      else signal.addEventListener('abort', () => resolve(), { once: true })
    })
    say('\nstopping …\n')
    return 0
  } catch (error) {
    if (signal.aborted) return 0
    throw error
  }
}
