// One call and its one answer: whoever is first (handler, deadline, caller, drain) gives it.

import type { ServerHttp2Session, ServerHttp2Stream } from 'node:http2'
import type { Socket } from 'node:net'
import type { DescMessage } from '@bufbuild/protobuf'
import type { Any } from '@bufbuild/protobuf/wkt'
import type { IdentityError } from '../../spiffe/errors.ts'
import type { Clock } from '../clock.ts'
import type { Abortable } from './context.ts'
import type { Deadline, Deadlines } from './deadline.ts'
import type { Reading } from './reading.ts'
import { createReplies, type Replies } from './replies.ts'
import type { Requests } from './requests.ts'
import {
  type CallContext,
  encodeReply,
  frameReply,
  methodName,
  type Reply,
  type Route,
} from './service.ts'
import {
  type Headers,
  ok,
  responseHeaders,
  type Status,
  statusOf,
  trailersOf,
  trailersOnly,
  whole,
} from './status.ts'
import { atRequestEnd, resetSoon } from './unended.ts'

export interface CallEvent<P> {
  /** `package.Service/Method`, or `unknown` */
  readonly method: string
  readonly code: number
  readonly ms: number
  readonly peer: P
  readonly error?: unknown
}

/** How one call is followed: `run` is around its handler, `end` after its answer. */
export interface CallTrace {
  run<T>(work: () => T): T
  end(code: number, error?: unknown): void
}

/** What all calls of one server share. */
export interface Rules<P> {
  readonly clock: Clock
  readonly deadlines: Deadlines
  readonly messageBytes: number
  readonly authorize: ((context: CallContext<P>) => void | Promise<void>) | undefined
  readonly observe: ((event: CallEvent<P>) => void) | undefined
  readonly trace: ((context: CallContext<P>) => CallTrace | undefined) | undefined
  readonly details: ((error: IdentityError) => readonly Any[]) | undefined
  readonly reading: Reading<P> | undefined
}

/** A connection's part in its calls: who calls, and the calls that are not answered yet. */
export interface Caller<P> {
  readonly peer: P
  readonly calls: Set<Call<P>>
  readonly http2: ServerHttp2Session
  readonly socket: Socket
}

export interface Call<P> extends Abortable {
  readonly stream: ServerHttp2Stream
  readonly route: Route<P>
  readonly caller: Caller<P>
  readonly rules: Rules<P>
  readonly started: number
  trace: CallTrace | undefined
  deadline: Deadline | undefined
  requests: Requests | undefined
  replies: Replies | undefined
  iterator: AsyncIterator<Reply<DescMessage>> | undefined
  trailers: Headers
  requestEnded: boolean
  answered: boolean
}

const streamed = { waitForTrailers: true, sendDate: false } as const

/** Ends the call's account; whoever calls this writes the answer, then reports. */
function settle<P>(call: Call<P>): void {
  const { caller, deadline, rules, stream } = call
  call.answered = true
  caller.calls.delete(call)
  if (deadline !== undefined) rules.deadlines.remove(deadline)
  call.requests?.end()
  call.replies?.release()
  // what still comes is thrown away
  if (!call.requestEnded) stream.resume()
}

function report<P>(call: Call<P>, code: number, error?: unknown) {
  const { caller, route, rules, started, trace } = call
  if (trace !== undefined) trace.end(code, error)
  if (rules.observe === undefined) return
  const ms = rules.clock.monotonic() - started
  const event = { method: methodName(route.method), code, ms, peer: caller.peer }
  try {
    rules.observe(error === undefined ? event : { ...event, error })
  } catch {
    // The caller has its answer; an observer that fails must not take the server with it.
  }
}

function statusFor<P>({ rules }: Call<P>, error: unknown): Status {
  try {
    return statusOf(error, rules.details)
  } catch {
    // `details` is extra; a call without an answer would hang its caller
    return statusOf(error)
  }
}

function isOpen(stream: ServerHttp2Stream): boolean {
  return !stream.destroyed && !stream.closed
}

function sendHeaders<P>(call: Call<P>): void {
  const { stream } = call
  stream.on('wantTrailers', () => {
    // Node submits trailers in an immediate of its own, so ours comes after
    stream.sendTrailers(call.trailers)
    if (!call.requestEnded) resetSoon(stream)
  })
  stream.respond(responseHeaders, streamed)
}

export function fail<P>(call: Call<P>, error: unknown): void {
  if (call.answered) return
  const { stream } = call
  const status = statusFor(call, error)
  settle(call)
  if (isOpen(stream)) {
    if (!stream.headersSent) {
      stream.respond(trailersOnly(status), whole)
      if (!call.requestEnded) resetSoon(stream)
    } else {
      call.trailers = trailersOf(status)
      call.replies?.flush()
      stream.end()
    }
  }
  report(call, status.code, error)
}

function succeed<P>(call: Call<P>, last?: Uint8Array): void {
  if (call.answered) return
  const { stream } = call
  settle(call)
  if (isOpen(stream)) {
    if (!stream.headersSent) sendHeaders(call)
    call.replies?.flush()
    if (last === undefined) stream.end()
    else stream.end(last)
  }
  report(call, ok)
}

/** how many times the largest message a refused request may still send, and be answered at its end */
const swallowed = 4

/** Answers a request that is refused before it was read, at its end when it has one soon. */
export function refuse<P>(call: Call<P>, error: unknown): void {
  if (call.answered) return
  const { route, rules, stream } = call
  // a stream of requests may have no end, its sender may wait for us
  if (route.kind === 'client_streaming' || route.kind === 'bidi_streaming') {
    fail(call, error)
    return
  }
  const status = statusFor(call, error)
  settle(call)
  report(call, status.code, error)
  if (!isOpen(stream)) return
  const answer = () => stream.respond(trailersOnly(status), whole)
  if (call.requestEnded) answer()
  else atRequestEnd(stream, swallowed * rules.messageBytes, answer)
}

async function stop<P>(iterator: AsyncIterator<P>): Promise<void> {
  try {
    await iterator.return?.()
  } catch {
    // The call has its answer already; what the handler says while it ends reaches nobody.
  }
}

/** Ends the call from outside its handler: its signal is aborted and `error` is the answer. */
export function abort<P>(call: Call<P>, error: IdentityError): void {
  if (call.answered) return
  call.reason = error
  call.requests?.fail(error)
  fail(call, error)
  call.control?.abort(error)
  if (call.iterator !== undefined) void stop(call.iterator)
}

export async function answerOnce<P>(
  call: Call<P>,
  handle: () => Reply<DescMessage> | Promise<Reply<DescMessage>>,
): Promise<void> {
  try {
    const reply = await handle()
    if (!call.answered) succeed(call, frameReply(call.route.method, reply))
  } catch (error) {
    fail(call, error)
  }
}

export async function answerMany<P>(
  call: Call<P>,
  handle: () => AsyncIterable<Reply<DescMessage>>,
): Promise<void> {
  const { stream } = call
  try {
    const iterator = handle()[Symbol.asyncIterator]()
    call.iterator = iterator
    for (let next = await iterator.next(); !next.done; next = await iterator.next()) {
      if (call.answered || !isOpen(stream)) return
      const message = encodeReply(call.route.method, next.value)
      if (call.replies === undefined) {
        call.replies = createReplies(stream, call.rules.reading?.follow(call))
        sendHeaders(call)
      }
      if (!call.replies.write(message)) await call.replies.drained()
    }
    succeed(call)
  } catch (error) {
    fail(call, error)
    if (call.iterator !== undefined) void stop(call.iterator)
  }
}
