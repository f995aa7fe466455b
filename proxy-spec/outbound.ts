// An outbound listener: where local programs connect, whom they reach by it, and what is done when that fails.
import { z } from 'zod'
import { address, duration } from '../runtime/config.ts'
import { loopback } from './loopback.ts'
import {
  addresses,
  listenerName,
  protocol,
  refuseForTcp,
  serviceName,
  spiffeId,
  waiting,
} from './words.ts'

/**
 * connect-failure: no connection; refused-stream: the peer says that it has not begun; reset: the connection ended
 * before an answer; gateway-error: 502, 503 or 504; unavailable: the gRPC status.
 */
const condition = z.enum([
  'connect-failure',
  'refused-stream',
  'reset',
  'gateway-error',
  'unavailable',
])

// only before the first byte of an answer. What may have been done already (reset, gateway-error,
// unavailable) is asked again only by methods for which that does no harm, and by gRPC if it says so
const retries = z
  .strictObject({
    // how often it is asked again; 0 is never
    attempts: z.int().min(0).max(10).default(1),
    on: z.array(condition).max(5).default(['connect-failure', 'refused-stream']),
    // for each attempt; `timeout` still holds for all of them
    perTry: waiting.optional(),
    // between attempts at first, doubled each time up to tenfold, with jitter
    backoff: duration.refine((ms) => ms >= 1 && ms <= 60_000, 'from 1ms to 60s').default(25),
  })
  .prefault({})

// the circuit breaker: an endpoint that fails is left out for a while
const outliers = z.strictObject({
  // so many failures one after the other: no connection, a reset, or an answer of 5xx
  consecutiveFailures: z.int().min(1).max(1000).default(5),
  // how often endpoints are looked at
  interval: waiting.default(10_000),
  // for so long at first, so much more each time it happens again
  ejection: waiting.default(30_000),
  // never more than this part of them at once; one may always be left out where there are others
  maxEjected: z.int().min(0).max(100).default(50),
})

const limits = z
  .strictObject({
    // to all endpoints together, at once
    connections: z.int().min(1).max(1_000_000).optional(),
    requests: z.int().min(1).max(1_000_000).optional(),
  })
  .prefault({})

export const outbound = z
  .strictObject({
    // in logs; outbound-0, outbound-1, … when left out
    name: listenerName.optional(),
    // where local programs connect, without TLS; whoever reaches it speaks as this identity
    listen: address,
    // has to be said to listen elsewhere than on loopback
    allowNonLoopback: z.boolean().default(false),
    protocol,
    // the peer's address, or several of the same peer, or …
    destination: addresses.optional(),
    // … its name among the endpoints that the agent knows; exactly one of the two
    service: serviceName.optional(),
    // the SPIFFE IDs that the peer may show; a request is sent to no one else
    expect: z.array(spiffeId).min(1, 'name at least one SPIFFE ID').max(64),
    // TCP and TLS to the peer
    connectTimeout: waiting.default(5_000),
    // from the end of the request to the end of the answer; for ever when left out, as streams need it
    timeout: waiting.optional(),
    retries,
    outliers: outliers.optional(),
    loadBalancing: z.enum(['least-request', 'round-robin', 'random']).default('least-request'),
    limits,
  })
  .superRefine((it, context) => {
    const { timeout, retries: again } = it
    const problem = (path: string, message: string) =>
      context.addIssue({ code: 'custom', path: [path], message })
    if ((it.destination === undefined) === (it.service === undefined))
      problem('destination', 'give either destination or service')
    if (!it.allowNonLoopback && !loopback.test(it.listen.host))
      problem('listen', 'not a loopback address; set allowNonLoopback: true if that is meant')
    refuseForTcp(it, { timeout }, context)
    if (it.limits.requests !== undefined) refuseForTcp(it, { limits: it.limits }, context)
    if (again.perTry !== undefined) refuseForTcp(it, { retries: again }, context)
    if (timeout !== undefined && again.perTry !== undefined && again.perTry > timeout)
      problem('retries', 'perTry is longer than timeout')
  })

export type OutboundSpec = Readonly<z.infer<typeof outbound>>
export type Retries = OutboundSpec['retries']
export type RetryCondition = z.infer<typeof condition>
export type Outliers = Readonly<z.infer<typeof outliers>>
