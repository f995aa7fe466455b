// castellan dev --check: the tour without a person. Each step proves one promise; all have to hold.
import { systemClock } from '../../runtime/clock.ts'
import { explain, IdentityError } from '../../spiffe/errors.ts'
import type { Context, ExitCode } from '../context.ts'
import { type DevMesh, startMesh } from './mesh.ts'
import type { Proxies } from './proxies.ts'
import { watchRotations } from './rotations.ts'
import { followStatus } from './status.ts'
import { type Check, type Step, stepsWith } from './steps.ts'
import { call, startTraffic } from './traffic.ts'

const svidLifetime = '12s'
// renewed once on the way, and not lost when this machine stands still for a while
const agentLifetime = '60s'
// about 35 s on an idle machine; this is where a busy one gives up
const budget = 170_000

interface Outcome {
  readonly step: string
  readonly held: boolean
  readonly detail: string
  readonly ms: number
}

async function tryStep([name, prove]: Step, check: Check): Promise<Outcome> {
  const start = performance.now()
  const outcome = (held: boolean, detail: string) => ({
    step: name,
    held,
    detail,
    ms: Math.round(performance.now() - start),
  })
  try {
    return outcome(true, await prove(check))
  } catch (error) {
    return outcome(false, explain(error))
  }
}

/** Without policies everything is denied: the traffic that counts begins after that. */
async function untilServed({ toPayments }: DevMesh, signal: AbortSignal): Promise<void> {
  while ((await call(toPayments, 'GET', '/balance', { signal })).status !== 200)
    await systemClock.sleep(100, { signal })
}

async function tour(
  proxies: Proxies,
  tell: (outcome: Outcome) => void,
  signal: AbortSignal,
): Promise<DevMesh> {
  const events: Check['events'] = []
  const started = performance.now()
  const mesh = await startMesh({
    svidLifetime,
    agentLifetime,
    proxies,
    signal,
    onEvent: (who, event) => events.push({ who, event }),
  })
  const took = Math.round(performance.now() - started)
  tell({
    step: `authority, agent, services and ${proxies.many} start`,
    held: true,
    detail: `${mesh.pids().length} processes`,
    ms: took,
  })
  await using open = new AsyncDisposableStack()
  open.use(mesh)
  await untilServed(mesh, signal)
  const feed = open.use(followStatus(mesh.adminSocket))
  const traffic = open.use(
    startTraffic(mesh.toPayments, '/balance', { clock: systemClock, lanes: 6, pause: 20 }),
  )
  const shown = open.use(watchRotations(mesh, systemClock))
  const check: Check = { mesh, feed, traffic, shown, events, signal, clock: systemClock }
  for (const step of stepsWith(proxies)) {
    tell(await tryStep(step, check))
    // out of time or stopped: the steps that are left could only say the same
    signal.throwIfAborted()
  }
  return mesh
}

function isGone(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return false
  } catch {
    return true
  }
}

/** Exit 0 only when every step held. */
export async function checkTour(context: Context, proxies: Proxies): Promise<ExitCode> {
  const { stdout } = context.process
  const outcomes: Outcome[] = []
  const tell = (outcome: Outcome) => {
    outcomes.push(outcome)
    const { step, held, detail, ms } = outcome
    stdout.write(
      context.isJson
        ? `${JSON.stringify(outcome)}\n`
        : `${held ? 'ok  ' : 'FAIL'}  ${step} (${detail}; ${ms} ms)\n`,
    )
  }
  const signal = AbortSignal.any([context.signal, AbortSignal.timeout(budget)])
  try {
    const { pids, stage, stubborn } = await tour(proxies, tell, signal)
    const left = [
      ...stubborn().map((pid) => `process ${pid} had to be killed`),
      ...pids()
        .filter((pid) => !isGone(pid))
        .map((pid) => `process ${pid}`),
      ...(stage.exists() ? [stage.folder] : []),
    ]
    tell({
      step: 'nothing is left behind',
      held: left.length === 0,
      detail: left.join(', ') || 'no process, no file',
      ms: 0,
    })
  } catch (error) {
    if (context.signal.aborted) throw new IdentityError('ERR_CANCELLED', 'the tour was stopped')
    tell({ step: 'the tour', held: false, detail: explain(error), ms: 0 })
  }
  const held = outcomes.filter((outcome) => outcome.held).length
  if (!context.isJson) stdout.write(`dev --check: ${held} of ${outcomes.length} steps held\n`)
  return held === outcomes.length ? 0 : 1
}
