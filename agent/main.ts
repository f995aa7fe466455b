// The node agent, running: its sockets open, joined or resumed, disposed in reverse order.
import { mkdirSync, rmSync } from 'node:fs'
import { dirname } from 'node:path'
import { type Clock, systemClock } from '../runtime/clock.ts'
import { type GrpcServer, type GrpcServerOptions, startGrpcServer } from '../runtime/grpc/server.ts'
import type { Service } from '../runtime/grpc/service.ts'
import { aborted, type Running } from '../runtime/lifecycle.ts'
import type { Log } from '../runtime/log.ts'
import { startTracing } from '../runtime/tracing/start.ts'
import type { Caller } from './attest/caller.ts'
import { callerFields, readingOf } from './audience.ts'
import type { Beside } from './beside.ts'
import type { AgentConfig } from './config.ts'
import { type Core, type CoreOptions, openCore } from './core.ts'
import { type Driving, drivesNothing } from './proxies/driving.ts'
import { openServing, type Serving } from './serving.ts'
import { demandSecurityHeader, workloadApiService } from './workload-api/service.ts'

export interface RunningAgent extends AsyncDisposable {
  readonly socket: string
  readonly adminSocket: string
  /** rejects when the authority no longer wants this agent */
  readonly done: Promise<void>
}

export interface RunOptions {
  readonly log: Log
  readonly clock?: Clock
  readonly signal: AbortSignal
  /** see CoreOptions */
  readonly between?: CoreOptions['between']
}

// everyone on the node may connect, and asks for little
const publicLimits = { messageBytes: 1024 * 1024 } as const

/** milliseconds: who has waited for the socket connects and has its answer by then */
const firstAnswers = 20

function startPublic(
  { config, clock, log }: Core,
  serving: Serving,
  services: Pick<GrpcServerOptions<Caller>, 'services' | 'later'>,
): Promise<GrpcServer<Caller>> {
  mkdirSync(dirname(config.socket), { recursive: true })
  return startGrpcServer<Caller>({
    listen: { path: config.socket, mode: 0o777 },
    ...services,
    peer: serving.crowd,
    disconnected: (caller) => caller[Symbol.dispose](),
    authorize(call) {
      serving.pace(call.peer.process.uid)
      demandSecurityHeader(call)
    },
    limits: publicLimits,
    reading: readingOf(log, callerFields),
    observe: ({ method, code, error }) =>
      log.debug({ method, code, ...(error === undefined ? {} : { err: error }) }, 'call'),
    clock,
  })
}

/** Envoy's whole vocabulary is loaded only where an Envoy is driven. Throws ERR_CONFIG. */
async function startDriving(core: Core): Promise<Driving> {
  if (core.config.proxies.length === 0) return drivesNothing
  const { startDriven } = await import('./proxies/start.ts')
  return startDriven(core)
}

/** Rejects as soon as one of them does. */
function allOf(...running: readonly Running[]): Promise<void> {
  const done = Promise.all(running.map((it) => it.done)).then(() => {})
  done.catch(() => {})
  return done
}

/** milliseconds: an Envoy that asks again does so for a second */
const longestUndecided = 500

/** Joined or not; what is on the disk could let in who was denied since. */
async function deciding(
  { session, clock }: Core,
  beside: Beside,
  signal: AbortSignal,
): Promise<void> {
  const late = clock.sleep(longestUndecided, { signal })
  await Promise.race([session.untilHeard(signal), late])
  await beside.decide()
}

/**
 * Starts the agent of `config`: its sockets answer at once, from the disk or with Unavailable; resolves once
 * this node has an identity. Throws when it may not join, with what to do about it.
 */
export async function runAgent(config: AgentConfig, options: RunOptions): Promise<RunningAgent> {
  const { log, clock = systemClock, signal, between } = options
  await using starting = new AsyncDisposableStack()
  const resource = {
    'service.name': 'castellan-agent',
    'castellan.trust_domain': config.trustDomain,
  }
  const { tracer } = starting.use(await startTracing(config.tracing, { resource, clock, log }))
  const core = starting.use(openCore({ config, tracer, clock, log, between }))
  const serving = openServing(core)
  const services = [workloadApiService({ ...serving, config })]
  const later = Promise.withResolvers<readonly Service<Caller>[]>()
  const server = starting.use(await startPublic(core, serving, { services, later: later.promise }))
  starting.use(core.audience.carry(server))
  starting.defer(() => later.resolve([]))
  // a start that is given up meanwhile is so below
  if (core.knowledge.isComplete()) await systemClock.sleep(firstAnswers, { signal }).catch(() => {})
  // only now: whatever is loaded before stands between a workload that waits and its SVID
  const { moreServices, startBeside } = await import('./beside.ts')
  const driving = starting.use(await startDriving(core))
  later.resolve(moreServices(core, driving, services))
  const beside = starting.use(await startBeside(core, serving, server))
  const loop = starting.use(core.start())
  {
    using stopped = aborted(signal)
    const ready = Promise.all([core.session.joined, deciding(core, beside, signal)])
    await Promise.race([ready, loop.done, stopped.promise])
  }
  const { startBroker } = await import('./broker/listener.ts')
  starting.use(await startBroker(core, serving))
  log.info({ agentId: core.session.status().svid?.id, socket: config.socket }, 'ready')
  const running = starting.move()
  return {
    socket: config.socket,
    adminSocket: config.adminSocket,
    done: allOf(loop, beside.files),
    async [Symbol.asyncDispose]() {
      // first: a call that is under way may need the authority still
      await Promise.all([server.drain(), beside.drain()])
      await running.disposeAsync()
      for (const path of [config.socket, config.adminSocket]) rmSync(path, { force: true })
      log.info('stopped')
    },
  }
}
