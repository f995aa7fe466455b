// Where requests of a listener go: to the one workload behind it, or to endpoints that are chosen for each attempt.
import type { Agent } from 'node:http'
import type { ClientHttp2Session } from 'node:http2'
import type { Retries } from '../proxy-spec/outbound.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Refusal } from './door.ts'

/** A workload on this machine, or a peer behind mutual TLS. */
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

/** One attempt at one endpoint, over when it is disposed. */
export interface Attempt<R> extends Disposable {
  readonly route: R
  /** of the endpoint */
  readonly key: string
  /** How it went, as far as that is the endpoint's. */
  judge(isWell: boolean): void
}

export interface Onward<R> {
  /** Takes a request in until the returned function is called; a refusal when there are too many. */
  enter(): (() => void) | Refusal
  /** The next endpoint, not of `tried` if there is another; a refusal when there is none at all. */
  attempt(tried: ReadonlySet<string>): Attempt<R> | Refusal
  /** undefined where nothing is ever asked again */
  readonly again: Again | undefined
  /** milliseconds from the end of the request to the end of the answer */
  readonly timeout: number | undefined
}

export interface Again {
  readonly retries: Retries
  /** Takes one of the requests as asked again; undefined when too many are. */
  take(): (() => void) | undefined
  hasOther(tried: ReadonlySet<string>): boolean
  /** uniform in [0, 1) */
  random(): number
}

/** One route, once, whatever comes of it. */
export function soleRoute<R>(route: R): Onward<R> {
  const attempt = { route, key: '', judge() {}, [Symbol.dispose]() {} }
  return { enter: () => () => {}, attempt: () => attempt, again: undefined, timeout: undefined }
}
