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
import { startListener } from '../../runtime/grpc/listen.ts'
import { createGrpcSpeaker } from '../../runtime/grpc/speaker.ts'
import type { Caller } from '../attest/caller.ts'
import type { Core } from '../core.ts'
import type { DecisionsConfig } from './config.ts'
import { createHttp1 } from './http1.ts'
import { followPolicies } from './in-force.ts'
import type { Judging } from './judge.ts'
import { createPeers, type PeersOptions } from './peers.ts'
import { reportDecisions } from './reports.ts'
import { authorizationService } from './service.ts'
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
  /** Accepts nothing more, answers what was asked, ends the connections. */
  drain(): Promise<void>
}

const limits = { messageBytes: 1024 * 1024, streamsPerConnection: 1000 } as const
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
  drain(): Promise<void>
}

/** Attests each connection before its first byte, and has it served by what it speaks. */
function openServers(
  options: DecisionOptions,
  judging: Judging,
  visit: (caller: Caller) => Visitor,
): Servers {
  const { crowd, clock } = options
  const attested = new WeakMap<Socket, () => Visitor>()
  const grpc = createGrpcSpeaker<Visitor>({
    services: [authorizationService(judging)],
    peer(socket) {
      const visitor = attested.get(socket)
      if (visitor === undefined) throw new TypeError('a connection that was not attested')
      return visitor()
    },
    limits,
    clock,
  })
  const http1 = createHttp1(judging)

  return {
    accept(socket) {
      try {
        const visitor = visit(crowd(socket))
        attested.set(socket, () => visitor)
        socket.once('close', () => visitor[Symbol.dispose]())
        listenTo(socket, { http1: (it) => http1.serve(it, visitor), http2: grpc.accept })
      } catch (error) {
        // who is refused is told why in HTTP/2, as at the public socket
        attested.set(socket, () => {
          throw error
        })
        grpc.accept(socket)
      }
    },
    get connections() {
      return grpc.connections + http1.connections
    },
    async drain() {
      await Promise.all([http1.drain(), grpc.drain()])
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
    drain: drainOnce,
    async [Symbol.asyncDispose]() {
      await drainOnce()
      await running.disposeAsync()
    },
  }
}
