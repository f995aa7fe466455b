// Sends a request on by HTTP/2 and hands back the head of its answer, with the stream that carries the rest.
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  constants,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
} from 'node:http2'
import { type Failure, failureOf, type Sent, type Told } from './attempt.ts'
import type { Body } from './body.ts'
import { unreachable } from './door.ts'
import { cutStream } from './http2-cut.ts'
import type { Route } from './onward.ts'

export interface Http2Answer {
  readonly upstream: ClientHttp2Stream
  readonly headers: IncomingHttpHeaders
  /** nothing follows: of gRPC, trailers only */
  readonly isAll: boolean
}

export interface OutgoingHttp2 {
  readonly headers: OutgoingHttpHeaders
  /** undefined when there is none */
  readonly body: Body | undefined
  /** milliseconds that an answer which has begun may be silent; 0 is for ever */
  readonly stall: number
}

/** The other side says, or the lack of a number shows, that nobody has begun with it (RFC 9113 §6.8, §8.7). */
function isUnbegun({ rstCode, id }: ClientHttp2Stream): boolean {
  return rstCode === constants.NGHTTP2_REFUSED_STREAM || id === undefined
}

const refusedStream = (error: unknown): Failure => ({
  ...{ conditions: ['refused-stream'], error, refusal: unreachable },
})

/** Of a request that could not even be begun: the session is over, or no session would carry it. */
function unsendable(session: ClientHttp2Session, error: unknown): Failure {
  const isOver = session.closed || session.destroyed
  return isOver ? refusedStream(error) : { conditions: [], error, refusal: unreachable }
}

const endStream = constants.NGHTTP2_FLAG_END_STREAM

function open(
  session: ClientHttp2Session,
  { headers, body, stall }: OutgoingHttp2,
  told: Told<Http2Answer>,
): ClientHttp2Stream {
  const upstream = session.request(headers, { endStream: body === undefined })
  let isTold = false
  let error: unknown = new Error('the stream was closed without an answer')
  upstream.on('error', (its) => {
    error = its
  })
  upstream.once('response', (its, flags) => {
    isTold = true
    const isAll = (flags & endStream) !== 0
    if (stall > 0) upstream.setTimeout(stall, () => cutStream(upstream, 'broken'))
    const grpcStatus = isAll ? its['grpc-status'] : undefined
    const head = { status: its[':status'] ?? 502, grpcStatus: grpcStatus?.toString() }
    told.answered(head, { upstream, headers: its, isAll })
  })
  upstream.once('close', () => {
    if (isTold) return
    told.failed(isUnbegun(upstream) ? refusedStream(error) : failureOf(error, true))
  })
  body?.sendTo(upstream)
  return upstream
}

export function forwardHttp2(route: Route, outgoing: OutgoingHttp2, told: Told<Http2Answer>): Sent {
  let upstream: ClientHttp2Stream | undefined
  let isOver = false
  const failed = (failure: Failure) => {
    if (!isOver) told.failed(failure)
  }
  route.session().then(
    (session) => {
      if (isOver) return
      try {
        upstream = open(session, outgoing, { answered: told.answered, failed })
      } catch (error) {
        failed(unsendable(session, error))
      }
    },
    (error: unknown) => failed(failureOf(error, false)),
  )
  const abort = () => {
    isOver = true
    if (upstream !== undefined) cutStream(upstream, 'cancelled')
  }
  return { abort, discard: abort }
}
