// The node agent, running: its sockets open, joined or resumed, disposed in reverse order.
import { mkdirSync, rmSync } from 'node:fs'
import { dirname } from 'node:path'
import { type Clock, systemClock } from '../runtime/clock.ts'
import { privateFolder } from '../runtime/durable.ts'
import { healthService } from '../runtime/grpc/health.ts'
import { reflectionServices } from '../runtime/grpc/reflection.ts'
import { type GrpcServer, startGrpcServer } from '../runtime/grpc/server.ts'
import type { Running } from '../runtime/lifecycle.ts'
import type { Log } from '../runtime/log.ts'
import { selfTest } from '../runtime/self-test.ts'
import { adminService } from './admin.ts'
import type { Caller } from './attest/caller.ts'
import { mostPerUser } from './attest/crowd.ts'
import { startBroker } from './broker/listener.ts'
import type { AgentConfig } from './config.ts'
import { type Core, type CoreOptions, openCore } from './core.ts'
import { delegatedIdentityService } from './delegated-identity/service.ts'
import { materialOfAgent } from './files/of-agent.ts'
import { type FileWriter, startFileWriter } from './files/writer.ts'
import { openServing, type Serving } from './serving.ts'
import { sidecarService } from './sidecar/service.ts'
import { demandSecurityHeader, workloadApiService } from './workload-api/service.ts'
import { secretService } from './xds/service.ts'

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
const publicLimits = { messageBytes: 1024 * 1024, connections: 4 * mostPerUser } as const

function startPublic(core: Core, serving: Serving): Promise<GrpcServer<Caller>> {
  const { config, knowledge, ledger, clock, log } = core
  const services = [
    workloadApiService({ ...serving, config }),
    sidecarService({ knowledge, ledger, services: config.services, log }),
    secretService(core),
  ]
  mkdirSync(dirname(config.socket), { recursive: true })
  return startGrpcServer<Caller>({
    listen: { path: config.socket, mode: 0o777 },
    services: [
      ...services,
      healthService<Caller>(() => (knowledge.isComplete() ? 'serving' : 'not serving')),
      ...reflectionServices<Caller>(services.map(({ descriptor }) => descriptor)),
    ],
    peer: serving.callers,
    disconnected: (caller) => caller[Symbol.dispose](),
    authorize: demandSecurityHeader,
    limits: publicLimits,
    observe: ({ method, code, error }) =>
      log.debug({ method, code, ...(error === undefined ? {} : { err: error }) }, 'call'),
    clock,
  })
}

/** What an agent does beside its authority. */
interface Work {
  readonly serving: Serving
  readonly files: FileWriter
}

function startAdmin(core: Core, { serving, files }: Work): Promise<GrpcServer<Caller>> {
  const { config, knowledge, cache, clock } = core
  const { entitled, jwt, references, explain } = serving
  const delegates = new Set(config.delegates)
  privateFolder(dirname(config.adminSocket))
  return startGrpcServer<Caller>({
    listen: { path: config.adminSocket, mode: 0o600 },
    services: [
      adminService({ ...core, explain, files }),
      delegatedIdentityService({ knowledge, cache, entitled, jwt, references, delegates }),
    ],
    peer: serving.callers,
    disconnected: (caller) => caller[Symbol.dispose](),
    clock,
  })
}

function startFiles(core: Core): FileWriter {
  const { config, clock, log } = core
  return startFileWriter({ sets: config.files, source: materialOfAgent(core), clock, log })
}

/** Rejects as soon as one of them does. */
function allOf(...running: readonly Running[]): Promise<void> {
  const done = Promise.all(running.map((it) => it.done)).then(() => {})
  done.catch(() => {})
  return done
}

/** Rejects once `signal` is aborted. */
function aborted(signal: AbortSignal): { readonly promise: Promise<never> } & Disposable {
  const { promise, reject } = Promise.withResolvers<never>()
  promise.catch(() => {})
  const abort = () => reject(signal.reason)
  signal.addEventListener('abort', abort, { once: true })
  if (signal.aborted) abort()
  return { promise, [Symbol.dispose]: () => signal.removeEventListener('abort', abort) }
}

/**
 * Starts the agent of `config`: its sockets answer at once, from the disk or with Unavailable; resolves once
 * this node has an identity. Throws when it may not join, with what to do about it.
 */
export async function runAgent(config: AgentConfig, options: RunOptions): Promise<RunningAgent> {
  const { log, clock = systemClock, signal, between } = options
  await selfTest()
  await using starting = new AsyncDisposableStack()
  const core = starting.use(openCore({ config, clock, log, between }))
  const serving = openServing(core)
  starting.use(await startPublic(core, serving))
  // disposed after the connection to the authority: what it waits for has failed by then
  const files = starting.use(startFiles(core))
  starting.use(await startAdmin(core, { serving, files }))
  const loop = starting.use(core.start())
  {
    using stopped = aborted(signal)
    await Promise.race([core.session.joined, loop.done, stopped.promise])
  }
  starting.use(await startBroker(core, serving))
  log.info({ agentId: core.session.status().svid?.id, socket: config.socket }, 'ready')
  const running = starting.move()
  return {
    socket: config.socket,
    adminSocket: config.adminSocket,
    done: allOf(loop, files),
    async [Symbol.asyncDispose]() {
      await running.disposeAsync()
      for (const path of [config.socket, config.adminSocket]) rmSync(path, { force: true })
      log.info('stopped')
    },
  }
}
