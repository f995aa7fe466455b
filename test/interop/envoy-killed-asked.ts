// A listener where the agent decides: while it is dead nobody passes, and afterwards everything is as before.
import { systemClock } from '../../runtime/clock.ts'
import {
  answers,
  counted,
  demand,
  demandDenied,
  doorsOf,
  followsPolicies,
  hearsMore,
  ofAllowed,
  type Scene,
  startTraffic,
  timed,
} from './envoy-killed-scene.ts'
import { eventually } from './eventually.ts'
import type { Answer, SteadyTraffic } from './steady-traffic.ts'

const rounds = 2
/** milliseconds: a second of asking again, as an Envoy tells the time that has to wait for its processor */
const patience = 700

/** milliseconds, of the monotonic clock */
interface Outage {
  readonly killed: number
  /** when the process was no more */
  readonly gone: number
  /** when somebody started it again */
  readonly started: number
  readonly ready: number
}

/** It is dead until `meanwhile` is over. */
async function kill(it: Scene, meanwhile: () => Promise<void>): Promise<Outage> {
  const killed = systemClock.monotonic()
  await it.node.killAgent()
  const gone = systemClock.monotonic()
  await meanwhile()
  const started = systemClock.monotonic()
  await it.node.startAgent()
  return { killed, gone, started, ready: systemClock.monotonic() }
}

const round = (ms: number) => Math.round(ms)

/** Least, middle and most. */
function spread(values: readonly number[]): string {
  const sorted = values.toSorted((a, b) => a - b)
  const at = (share: number) => round(sorted[Math.floor((sorted.length - 1) * share)] ?? 0)
  return `${at(0)}, ${at(0.5)}, ${at(1)} ms`
}

function judge(all: readonly Answer[], { killed, gone, started, ready }: Outage): string {
  const mine = ofAllowed(all).filter(({ ended }) => ended >= killed)
  const dead = mine.filter(({ began, ended }) => began > gone && ended < started)
  const passed = dead.filter(({ status }) => status !== 503)
  const failed = mine.filter(({ status }) => status !== 200)
  const others = failed.filter(({ status }) => status !== 503)
  demand(others.length === 0, `not refused but failed: ${counted(others)}`)
  demand(passed.length === 0, `${counted(passed)} while nobody decided`)
  const hasty = dead.filter(({ began, ended }) => ended - began < patience)
  demand(hasty.length === 0, `${hasty.length} requests were given up long before a second was over`)
  const last = Math.max(0, ...failed.map(({ ended }) => ended - ready))
  const longest = Math.max(...mine.map(({ began, ended }) => ended - began))
  return [
    `dead ${round(started - killed)} ms, ready ${round(ready - started)} ms later`,
    `${failed.length} of ${mine.length} requests failed`,
    failed.length === 0 ? '' : `after ${spread(failed.map((it) => it.ended - it.began))}`,
    failed.length === 0 ? '' : `the last ${round(last)} ms after it was ready`,
    `the longest took ${round(longest)} ms`,
  ]
    .filter((it) => it !== '')
    .join('; ')
}

async function once(it: Scene, meanwhile: (traffic: SteadyTraffic) => Promise<void>) {
  const { direct } = doorsOf(it)
  const traffic = startTraffic(it)
  let outage: Outage
  {
    await using _ = traffic
    await hearsMore(traffic, 50)
    outage = await kill(it, () => meanwhile(traffic))
    await timed('allowed requests pass again', () => answers(direct, '/ok', 200))
    await hearsMore(traffic, 100)
  }
  demandDenied(it, traffic.answers, [403, 503])
  return judge(traffic.answers, outage)
}

export async function failsClosed(it: Scene, log: (line: string) => void): Promise<void> {
  await eventually('the agent decides', async () => {
    const { proxies } = await it.status()
    const isAsked = proxies[0]?.remarks.some((one) => one.includes('the agent decides'))
    demand(isAsked === true, `${proxies[0]?.remarks.join()}`)
  })
  await followsPolicies(it, '/before', '/none')
  for (let i = 0; i < rounds; i++) {
    const refusing = async (traffic: SteadyTraffic) => {
      const before = ofAllowed(traffic.answers).length
      await eventually('requests are refused', async () => {
        const now = ofAllowed(traffic.answers).slice(before)
        demand(now.filter(({ status }) => status === 503).length > 100, counted(now))
      })
    }
    log(`ok killed: ${await once(it, refusing)}`)
  }
  for (let i = 0; i < rounds; i++)
    log(`ok killed, started at once: ${await once(it, async () => {})}`)
  await followsPolicies(it, '/after', '/before')
}
