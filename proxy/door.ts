// What a request meets on its way in, whichever protocol it came by: a refusal, or a route onwards.
import type { Duplex } from 'node:stream'
import type { RawHttp } from '../policies/attributes/request.ts'
import type { Onward, Route } from './onward.ts'

export interface Passage {
  readonly onward: Onward<Route>
  /** whether each request goes on by HTTP/2, not only gRPC */
  readonly overHttp2: boolean
  /** header fields of the request as it was decided about, raw */
  readonly headers: readonly string[]
  /** header fields to add to the answer: names and values in turn */
  readonly downstream: readonly string[]
  /** path and query as they are forwarded */
  readonly path: string
  /** header fields to add: names and values in turn */
  readonly added: readonly string[]
  /** header names of the request that are not forwarded, in lower case */
  readonly drops: readonly string[]
  /** Puts the exchange under watch; `end` is called once it is not allowed any more. */
  begin(end: () => void): () => void
  /** whether the connection it came by is to be closed behind it */
  readonly isLast: () => boolean
}

export interface Refusal {
  readonly status: number
  /** for the peer: never names a policy */
  readonly text: string
  /** names in lower case and values, besides those of the text */
  readonly headers?: Readonly<Record<string, string | string[]>>
}

export type Asked = RawHttp

export type Answer = Passage | Refusal

export interface Door {
  /** A promise only where somebody else has to be asked. */
  open(asked: Asked): Answer | Promise<Answer>
}

/** Goes on with what is answered: at once where that is possible. */
export function settle(
  open: () => Answer | Promise<Answer> | undefined,
  go: (answer: Answer | undefined) => void,
  fail: (error: unknown) => void,
): void {
  try {
    const answer = open()
    if (answer instanceof Promise) answer.then(go).catch(fail)
    else go(answer)
  } catch (error) {
    fail(error)
  }
}

export function isRefusal<T extends object>(answer: T | Refusal): answer is Refusal {
  return 'status' in answer && 'text' in answer
}

/** Finds the door of a connection; undefined once it is closed. */
export type Doors = (connection: Duplex | object) => Door | undefined

export const unreachable: Refusal = { status: 502, text: 'the other side cannot be reached' }
