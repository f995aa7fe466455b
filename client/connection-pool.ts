// Kept connections for HTTP/1.1 over mutual TLS: each serves one matcher, and none outlives its SVID.
import { Agent } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Clock } from '../runtime/clock.ts'
import type { Matcher } from '../spiffe/match.ts'
import type { TlsSource } from './credential.ts'
import { connectTls } from './tls-connect.ts'
import type { SvidPicker } from './x509-source.ts'

export interface Pool extends Disposable {
  /** The agent whose connections lead to peers that `accept` accepts: the same function, the same agent. */
  agentFor(accept: Matcher): Agent
}

export interface PoolOptions {
  readonly pick?: SvidPicker
  readonly clock: Clock
}

const longestIdle = 30_000

export function createPool(source: TlsSource, { pick, clock }: PoolOptions): Pool {
  const stop = new AbortController()
  const agents = new WeakMap<Matcher, Agent>()
  const all = new Set<Duplex>()
  const idle = new Set<Duplex>()
  // those of the newest SVID and bundles
  let fresh = new WeakSet<Duplex>()

  async function open(accept: Matcher, host: string, port: number): Promise<Duplex> {
    const generation = fresh
    const { signal } = stop
    const options = { host, port, accept, clock, signal, protocols: ['http/1.1'] }
    const { socket } = await connectTls(source, pick === undefined ? options : { ...options, pick })
    generation.add(socket)
    all.add(socket)
    socket.once('close', () => {
      all.delete(socket)
      idle.delete(socket)
    })
    return socket
  }

  function createAgent(accept: Matcher): Agent {
    const agent = new Agent({ keepAlive: true, timeout: longestIdle })
    const keep = agent.keepSocketAlive.bind(agent)
    const reuse = agent.reuseSocket.bind(agent)
    agent.createConnection = ({ host, port }, created) => {
      open(accept, host ?? '', Number(port)).then(
        (socket) => created?.(null, socket),
        // the declaration wants a connection beside the error
        (error: Error) => Reflect.apply(created ?? (() => {}), undefined, [error]),
      )
      return undefined
    }
    agent.keepSocketAlive = (socket) => {
      if (!fresh.has(socket)) return false
      idle.add(socket)
      return keep(socket)
    }
    agent.reuseSocket = (socket, request) => {
      idle.delete(socket)
      reuse(socket, request)
    }
    return agent
  }

  const subscription = source.subscribe(() => {
    fresh = new WeakSet()
    for (const socket of idle) socket.destroy()
  })
  return {
    agentFor(accept) {
      const known = agents.get(accept) ?? createAgent(accept)
      agents.set(accept, known)
      return known
    },
    [Symbol.dispose]() {
      subscription[Symbol.dispose]()
      stop.abort(new Error('fetch was disposed'))
      for (const socket of all) socket.destroy()
    },
  }
}
