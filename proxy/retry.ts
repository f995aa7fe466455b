// Whether something is asked again, and when: pure, from what the spec says and how the last attempt went.
import type { Retries, RetryCondition } from '../proxy-spec/outbound.ts'

/** What is asked, as far as that says whether asking twice does harm. */
export interface Asking {
  readonly method: string
  readonly isGrpc: boolean
}

/** How an answer begins. */
export interface Head {
  readonly status: number
  /** of a gRPC answer that is nothing but trailers */
  readonly grpcStatus?: string | undefined
}

// RFC 9110 §9.2.2
export const idempotent: ReadonlySet<string> = new Set([
  'GET',
  'HEAD',
  'OPTIONS',
  'TRACE',
  'PUT',
  'DELETE',
])

// nobody has begun with it: it may be asked again whatever it is
const unbegun: ReadonlySet<RetryCondition> = new Set(['connect-failure', 'refused-stream'])

const gateway: ReadonlySet<number> = new Set([502, 503, 504])

/** google.rpc.Code UNAVAILABLE, which gRPC defines as what a client may ask again. */
const unavailable = '14'
// codes that gRPC maps to 5xx: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS
const serverFaults: ReadonlySet<string> = new Set(['2', '4', '12', '13', unavailable, '15'])

/** What an answer says in the words of the spec. */
export function conditionsOf({ status, grpcStatus }: Head): readonly RetryCondition[] {
  if (gateway.has(status)) return ['gateway-error']
  return grpcStatus === unavailable ? ['unavailable'] : []
}

/** Whether an answer speaks for the endpoint that gave it. */
export function isWell({ status, grpcStatus = '0' }: Head): boolean {
  return status < 500 && !serverFaults.has(grpcStatus)
}

/** `unavailable` is what gRPC itself says of a call, so its POST is no hindrance; of all else a method has to allow it. */
export function mayAskAgain(
  { on }: Pick<Retries, 'on'>,
  conditions: readonly RetryCondition[],
  { method, isGrpc }: Asking,
): boolean {
  return conditions.some(
    (it) =>
      on.includes(it) &&
      (unbegun.has(it) || idempotent.has(method) || (isGrpc && it === 'unavailable')),
  )
}

/** Milliseconds before attempt number `next` (the first is 0): doubled each time up to tenfold, with full jitter. */
export function backoffBefore(
  next: number,
  { backoff }: Pick<Retries, 'backoff'>,
  random: () => number,
): number {
  return random() * backoff * Math.min(2 ** (next - 1), 10)
}
