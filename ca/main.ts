// The authority, running: listeners and loops, disposed in reverse order.
import { rmSync } from 'node:fs'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import { type Clock, systemClock } from '../runtime/clock.ts'
import {
  type CallContext,
  type CallEvent,
  type GrpcServer,
  startGrpcServer,
} from '../runtime/grpc/server.ts'
import { startOperations } from '../runtime/http.ts'
import { every } from '../runtime/lifecycle.ts'
import type { Log } from '../runtime/log.ts'
import { selfTest } from '../runtime/self-test.ts'
import { secureContext, serverTls } from '../runtime/tls-server.ts'
import { traceCalls } from '../runtime/tracing/calls.ts'
import type { Tracer } from '../runtime/tracing/span.ts'
import { startTracing } from '../runtime/tracing/start.ts'
import { bundleSourceOf } from '../spiffe/bundle.ts'
import { explain, hasCode } from '../spiffe/errors.ts'
import { detailsOf, servicesOf } from './app.ts'
import type { Authority } from './authority.ts'
import { fetchBundles } from './bundle-fetching.ts'
import { nameOf, type Peer, peerOf } from './callers.ts'
import type { CaConfig } from './config.ts'
import { showAuthority } from './gauges.ts'
import type { IssueSteps } from './issue.ts'
import { type CaMetrics, createMetrics } from './metrics.ts'
import { type OpenOptions, openAuthority } from './open.ts'
import { followPolicies } from './policies-folder.ts'
import { firstServerSvid, renewServerSvid, type ServerSvid, serveReplicas } from './server-svid.ts'

export interface RunningAuthority extends AsyncDisposable {
  /** of the TLS listener */
  readonly port: number
  /** path of the local socket */
  readonly socket: string
  readonly operationsPort: number
}

export interface RunOptions {
  readonly log: Log
  readonly clock?: Clock
  readonly between?: NonNullable<IssueSteps['between']>
  readonly database?: OpenOptions['database']
  /** aborted: it is not waited any longer until it may serve */
  readonly signal?: AbortSignal
}

const never = new AbortController().signal

// Grows with the lifetime, so that demonstrations of minutes rotate as production of days does.
const slowestTick = 10_000
const crlTick = 30_000
/** milliseconds between signs of life in the store */
const presenceTick = 5000
/** 33 KiB each with a stream: a gigabyte; more agents are for more authorities */
const mostConnections = 30_000

/** Warnings for what operators act on, debug for what clients do all day. */
function logCall(log: Log, method: string, code: number, peer: Peer, error: unknown): void {
  const fields = {
    method,
    code,
    caller: nameOf(peer),
    ...(error === undefined ? {} : { err: error }),
  }
  if (code === 0 || hasCode(error, 'ERR_CANCELLED', 'ERR_UNAVAILABLE')) log.debug(fields, 'call')
  else log.warn(fields, 'call refused')
}

async function rotate({ authorities }: Authority, log: Log): Promise<void> {
  const { jwt, wit } = authorities
  for (const [kind, slots] of Object.entries({ x509: authorities, jwt, wit })) {
    for (const what of await slots.advance()) {
      const active = slots.own().find(({ state }) => state === 'active')?.id
      log.info({ kind, active, authorities: slots.all().length }, what)
    }
  }
}

function rotation(authority: Authority, config: CaConfig, log: Log, clock: Clock) {
  const tick = Math.min(slowestTick, config.authorityLifetime / 60)
  return every(clock, tick, async () => {
    try {
      await rotate(authority, log)
    } catch (error) {
      log.error({ err: error }, 'the rotation of authorities failed; tried again')
    }
  })
}

/** Who is connected where, for the other replicas. */
async function keepPresence(
  { acknowledgements, enforcement, endpoints }: Authority,
  log: Log,
): Promise<void> {
  try {
    await acknowledgements.keep()
    await enforcement.keep()
    await endpoints.keep()
  } catch (error) {
    log.error({ err: error }, 'the store does not know which agents are connected; tried again')
  }
}

async function refreshCrls({ revocation }: Authority, log: Log): Promise<void> {
  try {
    await revocation.refresh()
  } catch (error) {
    log.error({ err: error }, 'the revocation lists were not made; tried again')
  }
}

/** Whether a call is over once it is answered; what agents follow has no end that anybody waits for. */
const ends = ({ method }: CallContext<Peer>) =>
  method.methodKind === 'unary' || method.name === 'AttestAgent'

/** What both listeners share: the services, who calls, who may. */
function servingOf(
  authority: Authority,
  { policies: watched }: CaConfig,
  { metrics, tracer, log }: { metrics: CaMetrics; tracer: Tracer; log: Log },
) {
  const { clock, authorities, callers } = authority
  const notReady = () => reasonNotReady(authority)
  return {
    services: servicesOf(authority, { log, notReady, watched }),
    peer: (socket: Socket) => peerOf(socket, bundleSourceOf(authorities.bundle()), clock.now()),
    authorize: callers.authorize,
    details: detailsOf,
    trace: traceCalls<Peer>(tracer, ends),
    clock,
    observe({ method, code, ms, peer, error }: CallEvent<Peer>) {
      metrics.call(method, code, ms)
      logCall(log, method, code, peer, error)
    },
  }
}

/** What others keep up to date: the folder of policies, the bundles of other trust domains. */
function followOutside(
  { policies, development }: CaConfig,
  authority: Authority,
  { log, clock }: { readonly log: Log; readonly clock: Clock },
): AsyncDisposable {
  const following = new AsyncDisposableStack()
  if (policies !== undefined) following.use(followPolicies(policies, authority, { log, clock }))
  following.use(fetchBundles(authority, { log, clock, development }))
  return following
}

/** Starts the authority of `config`, which `ca init` has prepared. Throws IdentityError with what to do. */
export async function runAuthority(
  config: CaConfig,
  options: RunOptions,
): Promise<RunningAuthority> {
  const { log, clock = systemClock, between, database, signal = never } = options
  await selfTest()
  await using starting = new AsyncDisposableStack()
  const metrics = createMetrics()
  const seams = {
    ...(between === undefined ? {} : { between }),
    database: { ...database, onCommit: metrics.commit },
  }
  const resource = {
    'service.name': 'castellan-authority',
    'castellan.trust_domain': config.trustDomain,
  }
  const { tracer } = starting.use(await startTracing(config.tracing, { resource, clock, log }))
  const authority = starting.use(
    await openAuthority(config, { log, clock, tracer, onAsked: metrics.asked, ...seams }),
  )
  const servers: GrpcServer<Peer>[] = []
  const known = () => reasonNotReady(authority)
  showAuthority(metrics.registry, { authority, servers, tracer, notReady: known })
  // before anything is signed: the active authority may have ended while the program was down
  await rotate(authority, log)
  const serving = servingOf(authority, config, { metrics, tracer, log })
  const socket = config.socket ?? join(config.state, 'ca.sock')
  const local = await startGrpcServer<Peer>({ ...serving, listen: { path: socket, mode: 0o600 } })
  starting.use(local)
  await keepPresence(authority, log)
  starting.use(every(clock, presenceTick, () => keepPresence(authority, log)))
  starting.use(serveReplicas(authority, log))
  starting.use(rotation(authority, config, log, clock))
  const notReady = () => checkedReason(authority)
  const operations = starting.use(
    await startOperations({ listen: config.operations, notReady, metrics: metrics.registry }),
  )
  const svid = await firstServerSvid(authority, log, signal)
  metrics.serverSvid(svid.notAfter)
  const tls = serverTls(svid)
  const server = starting.use(
    await startGrpcServer<Peer>({
      ...{ ...serving, listen: config.listen, tls },
      limits: { connections: mostConnections },
    }),
  )
  servers.push(local, server)
  const use = (next: ServerSvid | undefined) => {
    metrics.serverSvid(next?.notAfter)
    if (next !== undefined) server.setTls(secureContext(next))
  }
  starting.use(renewServerSvid(svid, authority, { clock, log, use }))
  starting.use(every(clock, crlTick, () => refreshCrls(authority, log)))
  starting.use(watchPeers(server, authority, clock))
  starting.use(followOutside(config, authority, { log, clock }))
  const { port } = server
  log.info({ trustDomain: config.trustDomain, port, socket, operations: operations.port }, 'ready')
  const running = starting.move()
  return {
    port,
    socket,
    operationsPort: operations.port,
    async [Symbol.asyncDispose]() {
      await running.disposeAsync()
      rmSync(socket, { force: true })
      log.info('stopped')
    },
  }
}

/** Why it cannot sign or store, by what is known; undefined when it can. */
function reasonNotReady({ authorities, store }: Authority): string | undefined {
  try {
    authorities.active()
    return store.trouble()
  } catch (error) {
    return explain(error)
  }
}

/** The same after a write of its own: a disk that is full says so only when it is written to. */
async function checkedReason(authority: Authority): Promise<string | undefined> {
  try {
    await authority.store.probe()
    return reasonNotReady(authority)
  } catch (error) {
    // says what the store said by itself
    return error instanceof Error ? error.message : String(error)
  }
}

/** Invariant 1 on live connections: what has expired, was banned, denied or is trusted no more is cut off. */
function watchPeers(server: GrpcServer<Peer>, authority: Authority, ticking: Clock) {
  const { callers, clock, registry } = authority
  return every(ticking, 1000, () => {
    const now = clock.now()
    server.disconnect((peer) => {
      if (peer.kind !== 'svid') return false
      const isBanned = registry.agents.get(peer.id)?.banned === true
      return isBanned || peer.notAfter < now || callers.denialOf(peer) !== undefined
    })
  })
}
