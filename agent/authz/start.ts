// The decision socket: who connects is attested, and asks about requests of its own identities by ext_authz or
// by a plain HTTP/1.1 request. An agent that starts takes the path from the one before it, which answers what it
// was asked and ends.
import { mkdirSync } from 'node:fs'
import type { Socket } from 'node:net'
import { dirname } from 'node:path'
import { createDecisionLog } from '../../decisions/decision-log.ts'
import { startExpiry } from '../../decisions/expiry.ts'
import { startIssuers } from '../../decisions/issuers.ts'
import { createMesh, type Mesh, type MeshState } from '../../decisions/mesh.ts'
import { rehearse } from '../../decisions/rehearsal.ts'
import { createTally } from '../../decisions/tally.ts'
import { createBuckets } from '../../policies/limits.ts'
import { sayGoodbye } from '../../runtime/grpc/goodbye.ts'
import { startListener } from '../../runtime/grpc/listen.ts'
import { hasCode } from '../../spiffe/errors.ts'
import type { Caller } from '../attest/caller.ts'
import type { Core } from '../core.ts'
import type { DecisionsConfig } from './config.ts'
import { createHold, type Hold } from './hold.ts'
import { createHttp1 } from './http1.ts'
import { createHttp2 } from './http2.ts'
import { followPolicies } from './in-force.ts'
import type { Judging } from './judge.ts'
import { createPeers, type PeersOptions } from './peers.ts'
import { reportDecisions } from './reports.ts'
import { createStandings, type Standings } from './standing.ts'
import { listenTo } from './tongues.ts'
import { createVisitors, type Visitor } from './visitor.ts'

export interface DecisionOptions extends Pick<Core, 'knowledge' | 'ledger' | 'clock' | 'log'> {
  readonly config: DecisionsConfig
  /** where a listener of a proxy leads to; to itself when left out */
  readonly workloadPort?: Judging['workloadPort']
  readonly cache: PeersOptions['cache']
  /** see Judging */
  readonly counts?: { readonly decided: Judging['decided'] } | undefined
  /** Throws for a connection that nobody can be seen behind, and for one too many of a user. */
  readonly crowd: (socket: Socket) => Caller
}

export interface DecisionServer extends AsyncDisposable {
  readonly socket: string
  readonly connections: number
  /** those that have the connections */
  readonly processes: number
  /** whether whoever connects now finds this server */
  phase(): Hold | 'draining'
  /** Accepts nothing more, answers what was asked, ends the connections. */
  drain(): Promise<void>
}

const mostSaid = 1000

/** Says each thing once; when there were very many, once more. */
function createOnce(): Judging['once'] {
  const said = new Set<string>()
  return (key, say) => {
    if (said.has(key)) return
    if (said.size >= mostSaid) said.clear()
    said.add(key)
    say()
  }
}

/** Decides as for the callers of now: what they will be guarded by is made before they ask. */
function rehearsal(standings: Standings, now: () => number) {
  return (policies: MeshState['policies']): void => {
    for (const { served } of standings.all) {
      for (const { id, labels, inbound } of served)
        rehearse({ policies, labels: new Map([[id, labels]]) }, id, {
          inbound: inbound(),
          now: now(),
        })
    }
  }
}

/** What decides, and follows what the agent knows; whoever disposes of it has closed the socket before. */
function openJudging(
  options: DecisionOptions,
  standings: Standings,
  stack: AsyncDisposableStack,
): Judging {
  const { config, knowledge, cache, ledger, clock, log } = options
  const { workloadPort = (_, listener) => listener } = options
  const mesh: Mesh = createMesh()
  const tally = createTally(clock, createDecisionLog({ spec: config.decisionLog, log, clock }))
  const remedy = 'decisions.jwks.privateAddresses: true in agent.yaml'
  const issuers = stack.use(startIssuers(config.jwks, { remedy, log, clock }))
  const now = () => clock.now()
  stack.use(
    followPolicies({
      ...{ knowledge, ledger, mesh, issuers, clock, log },
      trusted: config,
      rehearse: rehearsal(standings, now),
    }),
  )
  stack.use(startExpiry({ mesh, clock, log }))
  stack.use(reportDecisions({ tally, ledger, clock }))
  const peers = stack.use(createPeers({ knowledge, cache, clock }))
  return {
    ...{ mesh, tally, workloadPort, clock, log },
    verifyPeer: peers.verify,
    buckets: createBuckets(),
    decided: options.counts?.decided,
    once: createOnce(),
  }
}

interface Servers {
  /** Takes a connection that was accepted just now. */
  accept(socket: Socket): void
  readonly connections: number
  readonly processes: number
  drain(): Promise<void>
}

/** Attests each connection before its first byte, and has it served by what it speaks. */
function openServers(
  { crowd }: DecisionOptions,
  judging: Judging,
  visit: (caller: Caller) => Visitor,
): Servers {
  const tongues = { http1: createHttp1(judging), http2: createHttp2(judging) }
  const visitors = new Set<Visitor>()

  /** Whoever made the error has said why; a peer is told that it is one too many, and nothing else. */
  function refuse(socket: Socket, error: unknown): void {
    if (hasCode(error, 'ERR_EXHAUSTED')) sayGoodbye(socket, error.message)
    else socket.on('error', () => {}).destroy()
  }

  return {
    accept(socket) {
      try {
        const visitor = visit(crowd(socket))
        visitors.add(visitor)
        socket.once('close', () => {
          visitors.delete(visitor)
          visitor[Symbol.dispose]()
        })
        listenTo(socket, visitor, tongues)
      } catch (error) {
        refuse(socket, error)
      }
    },
    get connections() {
      return tongues.http1.connections + tongues.http2.connections
    },
    get processes() {
      return new Set([...visitors].map(({ process }) => process.pid)).size
    },
    async drain() {
      await Promise.all([tongues.http1.drain(), tongues.http2.drain()])
    },
  }
}

export async function startDecisions(options: DecisionOptions): Promise<DecisionServer> {
  const { config, knowledge, clock, log } = options
  await using starting = new AsyncDisposableStack()
  const standings = createStandings()
  const judging = openJudging(options, standings, starting)
  const visitors = starting.use(createVisitors({ knowledge, standings, clock }))
  const servers = openServers(options, judging, visitors.visit)
  mkdirSync(dirname(config.socket), { recursive: true })
  const listener = await startListener({
    listen: { path: config.socket, mode: 0o666, takesOver: true },
    tls: undefined,
    connections: undefined,
    accept: servers.accept,
  })
  const hold = createHold(config.socket)
  log.info({ socket: config.socket }, 'deciding')
  const running = starting.move()
  let draining: Promise<void> | undefined

  async function drain(): Promise<void> {
    const closed = new Promise<void>((resolve) => listener.server.close(() => resolve()))
    await servers.drain()
    for (const socket of listener.sockets) socket.destroy()
    await closed
  }
  const drainOnce = () => {
    draining ??= drain()
    return draining
  }

  return {
    socket: config.socket,
    get connections() {
      return servers.connections
    },
    get processes() {
      return servers.processes
    },
    phase: () => (draining === undefined ? hold() : 'draining'),
    drain: drainOnce,
    async [Symbol.asyncDispose]() {
      await drainOnce()
      await running.disposeAsync()
    },
  }
}
