// The life of one call: its deadline, who may make it, its request, its handler.

import type { IncomingHttpHeaders, ServerHttp2Stream } from 'node:http2'
import type { Message } from '@bufbuild/protobuf'
import { hasCode, IdentityError } from '../../spiffe/errors.ts'
import {
  abort,
  answerMany,
  answerOnce,
  type Call,
  type Caller,
  type Rules,
  refuse,
} from './answer.ts'
import { createContext } from './context.ts'
import { parseTimeout } from './deadline.ts'
import { createFrameReader } from './frame.ts'
import { createRequests } from './requests.ts'
import { type CallContext, decodeRequest, type Route } from './service.ts'
import { okTrailers, tooLate, wentAway } from './status.ts'

function coded(error: unknown): IdentityError {
  if (hasCode(error)) return error
  return new IdentityError('ERR_RUNTIME', 'internal error', { cause: error })
}

function read<P>(call: Call<P>, onMessage: (bytes: Uint8Array) => void, onEnd: () => void): void {
  const { rules, stream } = call
  const reader = createFrameReader(rules.messageBytes, onMessage)
  const reject = call.requests === undefined ? refuse : abort
  stream.on('data', (chunk: Uint8Array) => {
    if (call.answered) return
    try {
      reader.push(chunk)
    } catch (error) {
      reject(call, coded(error))
    }
  })
  stream.on('end', () => {
    call.requestEnded = true
    if (call.answered) return
    if (!reader.partial) return onEnd()
    reject(call, new IdentityError('ERR_BAD_REQUEST', 'request ends inside a message'))
  })
}

function decoded<P>(call: Call<P>, bytes: Uint8Array | undefined): Message {
  if (bytes !== undefined) return decodeRequest(call.route.method, bytes)
  throw new IdentityError('ERR_UNIMPLEMENTED', 'request has no message, its method takes one')
}

/** Reads the one message of a method that takes one, to the end of the stream. */
function readOne<P>(call: Call<P>, then: (request: () => Message) => void): void {
  let only: Uint8Array | undefined
  read(
    call,
    (bytes) => {
      if (only !== undefined) {
        throw new IdentityError(
          'ERR_UNIMPLEMENTED',
          'request has more messages than its method takes',
        )
      }
      only = bytes
    },
    () => then(() => decoded(call, only)),
  )
}

function readMany<P>(call: Call<P>): AsyncIterable<Message> {
  const requests = createRequests(call.stream, (bytes) => decodeRequest(call.route.method, bytes))
  call.requests = requests
  read(call, requests.push, requests.end)
  return requests
}

function serve<P>(call: Call<P>, context: CallContext<P>): void {
  if (call.answered) return
  const { route, trace } = call
  const run = (work: () => Promise<void>) => void (trace === undefined ? work() : trace.run(work))
  switch (route.kind) {
    case 'unary':
      readOne(call, (it) => run(() => answerOnce(call, () => route.handle(it(), context))))
      return
    case 'server_streaming':
      readOne(call, (it) => run(() => answerMany(call, () => route.handle(it(), context))))
      return
    case 'client_streaming':
      run(() => answerOnce(call, () => route.handle(readMany(call), context)))
      return
    case 'bidi_streaming':
      run(() => answerMany(call, () => route.handle(readMany(call), context)))
  }
}

function setDeadline<P>(call: Call<P>, timeout: string): void {
  call.deadline = call.rules.deadlines.add(parseTimeout(timeout), () => abort(call, tooLate()))
}

function admit<P>(call: Call<P>, context: CallContext<P>): void | Promise<void> {
  return call.rules.authorize?.(context)
}

export interface Arrival<P> {
  readonly stream: ServerHttp2Stream
  readonly headers: IncomingHttpHeaders
  readonly rawHeaders: readonly string[]
  readonly route: Route<P>
  readonly caller: Caller<P>
}

export function startCall<P>(arrival: Arrival<P>, rules: Rules<P>): void {
  const { caller, headers, rawHeaders, route, stream } = arrival
  const call: Call<P> = {
    stream,
    route,
    caller,
    rules,
    started: rules.observe === undefined ? 0 : rules.clock.monotonic(),
    control: undefined,
    reason: undefined,
    trace: undefined,
    deadline: undefined,
    requests: undefined,
    replies: undefined,
    iterator: undefined,
    trailers: okTrailers,
    requestEnded: false,
    answered: false,
  }
  caller.calls.add(call)
  // every stream closes; only here and there one that is not answered
  const gone = () => {
    if (!call.answered) abort(call, wentAway())
  }
  stream.on('aborted', gone)
  stream.on('close', gone)
  const context = createContext(route.method, caller.peer, rawHeaders, call)
  try {
    if (rules.trace !== undefined) call.trace = rules.trace(context)
    const timeout = headers['grpc-timeout']
    if (typeof timeout === 'string') setDeadline(call, timeout)
    const admitted = admit(call, context)
    if (admitted === undefined) serve(call, context)
    else admitted.then(() => serve(call, context)).catch((error: unknown) => refuse(call, error))
  } catch (error) {
    refuse(call, error)
  }
}
