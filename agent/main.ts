// The node agent, running: joined or resumed, its sockets open, disposed in reverse order.
import { mkdirSync, rmSync } from 'node:fs'
import { dirname } from 'node:path'
import { Code, ConnectError } from '@connectrpc/connect'
import { createBackoff } from '../runtime/backoff.ts'
import { type Clock, systemClock } from '../runtime/clock.ts'
import { privateFolder } from '../runtime/durable.ts'
import { healthService } from '../runtime/grpc/health.ts'
import { reflectionServices } from '../runtime/grpc/reflection.ts'
import { startGrpcServer } from '../runtime/grpc/server.ts'
import type { Log } from '../runtime/log.ts'
import { selfTest } from '../runtime/self-test.ts'
import { hasCode } from '../spiffe/errors.ts'
import { adminService } from './admin.ts'
import { type Caller, createCallers } from './attest/caller.ts'
import { createIdentify } from './attest/peer-credentials.ts'
import { createUnixAttestor } from './attest/unix.ts'
import { type Addresses, createAddresses } from './authority.ts'
import type { AgentConfig } from './config.ts'
import { join } from './join.ts'
import { createKnowledge } from './knowledge.ts'
import type { AgentSvid } from './own-svid.ts'
import { createSession } from './session.ts'
import { createLedger } from './sidecar/ledger.ts'
import { sidecarService } from './sidecar/service.ts'
import { type AgentState, openState, type StateFile } from './state.ts'
import { createSvidCache } from './svid-cache.ts'
import { renewSvids } from './svid-renewal.ts'
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
  /** Where a crash harness may stop: before and after what the agent keeps is on disk. */
  readonly between?: (step: 'unsaved' | 'saved', svid: AgentSvid) => void
}

/** Waiting helps against an authority that is away, never against one that says no. */
function isFinal(error: unknown): boolean {
  if (hasCode(error)) return !hasCode(error, 'ERR_UNAVAILABLE')
  const later: readonly Code[] = [
    Code.Unavailable,
    // a connection that was reset
    Code.Aborted,
    Code.DeadlineExceeded,
    Code.Internal,
    Code.Unknown,
    Code.ResourceExhausted,
  ]
  return error instanceof ConnectError && !later.includes(error.code)
}

async function joined(
  config: AgentConfig,
  file: StateFile,
  addresses: Addresses,
  { log, clock = systemClock, signal }: RunOptions,
): Promise<AgentState> {
  const known = file.load()
  if (known !== undefined && known.svid.notAfter > clock.now()) return known
  const backoff = createBackoff({ first: 100, cap: 2000 })
  while (true) {
    try {
      const state = await join(config, file, { address: addresses.current(), clock, signal })
      file.save(state)
      log.info({ agentId: state.svid.id }, 'this node has joined')
      return state
    } catch (error) {
      if (isFinal(error)) throw error
      log.warn({ err: error }, 'this node has not joined yet; tried again')
      addresses.fail()
    }
    await clock.sleep(backoff.next(), { signal })
  }
}

// everyone on the node may connect, and asks for little
const publicLimits = { messageBytes: 1024 * 1024, connections: 4096 } as const

function stateOf({ state, trustDomain }: AgentConfig, { between }: RunOptions): StateFile {
  const file = openState(state, trustDomain)
  if (between === undefined) return file
  return {
    ...file,
    save(next) {
      between('unsaved', next.svid)
      file.save(next)
      between('saved', next.svid)
    },
  }
}

/** Starts the agent of `config`. Throws when it may not join, with what to do about it. */
export async function runAgent(config: AgentConfig, options: RunOptions): Promise<RunningAgent> {
  const { log, clock = systemClock } = options
  await selfTest()
  await using starting = new AsyncDisposableStack()
  const file = stateOf(config, options)
  const addresses = createAddresses(config.authority.address)
  const { svid, bundle } = await joined(config, file, addresses, options)
  const knowledge = createKnowledge(config.trustDomain, bundle, clock)
  const session = createSession({
    ...{ config, addresses, knowledge, state: file, svid, clock, log },
  })
  const cache = createSvidCache({ knowledge, clock, log })
  const ledger = createLedger()
  const callers = createCallers({
    identify: createIdentify(),
    attestor: createUnixAttestor(),
    knowledge,
    log,
  })
  const services = [
    workloadApiService({ knowledge, cache }),
    sidecarService({ knowledge, ledger, services: config.services, log }),
  ]
  mkdirSync(dirname(config.socket), { recursive: true })
  const publicServer = await startGrpcServer<Caller>({
    listen: { path: config.socket, mode: 0o777 },
    services: [
      ...services,
      healthService<Caller>(() => (knowledge.isComplete() ? 'serving' : 'not serving')),
      ...reflectionServices<Caller>(services.map(({ descriptor }) => descriptor)),
    ],
    peer: callers,
    disconnected: (caller) => caller[Symbol.dispose](),
    authorize: demandSecurityHeader,
    limits: publicLimits,
    observe: ({ method, code, error }) =>
      log.debug({ method, code, ...(error === undefined ? {} : { err: error }) }, 'call'),
    clock,
  })
  starting.use(publicServer)
  privateFolder(dirname(config.adminSocket))
  const admin = adminService({ knowledge, cache, ledger, session })
  const adminServer = await startGrpcServer<undefined>({
    listen: { path: config.adminSocket, mode: 0o600 },
    services: [admin],
    peer: () => undefined,
    clock,
  })
  starting.use(adminServer)
  const loop = starting.use(session.loop())
  starting.use(renewSvids({ cache, knowledge, request: session.request, clock, log }))
  log.info({ agentId: svid.id, socket: config.socket }, 'ready')
  const running = starting.move()
  return {
    socket: config.socket,
    adminSocket: config.adminSocket,
    done: loop.done,
    async [Symbol.asyncDispose]() {
      await running.disposeAsync()
      for (const path of [config.socket, config.adminSocket]) rmSync(path, { force: true })
      log.info('stopped')
    },
  }
}
