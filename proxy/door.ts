// What a request meets on its way in, whichever protocol it came by: a refusal, or a route onwards.
import type { Agent } from 'node:http'
import type { ClientHttp2Session } from 'node:http2'
import type { Duplex } from 'node:stream'
import type { SpiffeId } from '../spiffe/id.ts'

/** Where requests go: a workload on this machine, or a peer behind mutual TLS. */
export interface Route {
  readonly host: string
  readonly port: number
  /** kept connections */
  readonly pooled: Agent
  /** a fresh connection for each request */
  readonly single: Agent
  /** the HTTP/2 session for gRPC; rejects when the other side cannot be reached or is not trusted */
  session(): Promise<ClientHttp2Session>
  /** whom a connection of this route leads to; undefined for a workload */
  peerOf(connection: object | null): SpiffeId | undefined
}

export interface Passage {
  readonly route: Route
  /** path and query as they are forwarded */
  readonly path: string
  /** header fields to add: names and values in turn */
  readonly added: readonly string[]
  /** Puts the exchange under watch; `end` is called once it is not allowed any more. */
  begin(end: () => void): () => void
  /** whether the connection it came by is to be closed behind it */
  readonly isLast: () => boolean
}

export interface Refusal {
  readonly status: number
  /** for the peer: never names a policy */
  readonly text: string
}

export interface Asked {
  readonly method: string
  readonly target: string
}

export interface Door {
  open(asked: Asked): Passage | Refusal
}

export function isRefusal(answer: Passage | Refusal): answer is Refusal {
  return 'status' in answer
}

/** Finds the door of a connection; undefined once it is closed. */
export type Doors = (connection: Duplex | object) => Door | undefined

export const unreachable: Refusal = { status: 502, text: 'the other side cannot be reached' }
