// How often a caller may ask: a token bucket for each limit and caller. Pure: time is an argument.
import { createHash } from 'node:crypto'
import type { Request } from './attributes/request.ts'
import type { Mesh } from './language/mesh.ts'
import type { RateLimit } from './language/read.ts'
import { type FieldTest, operationTests, sourceTests } from './rules/field.ts'
import { quantifierOf } from './rules/quantify.ts'
import type { Setting } from './rules/test.ts'

/** One limit of a RateLimit, ready to be asked. */
export interface CompiledLimit {
  /** namespace/name of its document */
  readonly name: string
  /** in its document, from 0 */
  readonly index: number
  readonly file: string
  readonly line: number
  /** the same for the same limit of another set: its buckets live on */
  readonly key: string
  /** so many requests in `per` milliseconds, `burst` of them at once */
  readonly requests: number
  readonly per: number
  readonly burst: number
  /** Whether it speaks of that request; one that asks about HTTP speaks of no TCP connection. Never throws. */
  applies(request: Request): boolean
}

type LimitDocument = RateLimit['spec']['limits'][number]

function testsOf(document: LimitDocument, setting: Setting) {
  const { principals, to } = document
  const from = principals === undefined ? [] : sourceTests({ principals }, 'principals', setting)
  const operations = to?.map(({ operation }, i) =>
    operationTests(operation, `to[${i}].operation`, setting),
  )
  return { from, operations }
}

const allHold = (tests: readonly FieldTest[], request: Request) =>
  tests.every(({ asksHttp, holds }) => (request.http !== undefined || !asksHttp) && holds(request))

function appliesOf(document: LimitDocument, setting: Setting): CompiledLimit['applies'] {
  let tests: ReturnType<typeof testsOf> | undefined
  return (request) => {
    try {
      tests ??= testsOf(document, setting)
      const { from, operations } = tests
      if (!allHold(from, request)) return false
      return operations?.some((it) => allHold(it, request)) ?? true
    } catch {
      // what cannot be evaluated is limited
      return true
    }
  }
}

/** The limits of one document, in their order. */
export function compileLimits(
  { namespace, name, file, line, lines, spec }: RateLimit,
  mesh: Mesh,
): readonly CompiledLimit[] {
  const setting: Setting = { mesh, quantifier: quantifierOf('DENY', mesh.profile), namespace }
  const twins = new Map<string, number>()
  return spec.limits.map((document, index) => {
    const text = JSON.stringify([namespace, name, document])
    const twin = twins.get(text) ?? 0
    twins.set(text, twin + 1)
    const { requests, per, burst = requests } = document
    return {
      ...{ name: `${namespace}/${name}`, index, file, line: lines[index] ?? line },
      key: createHash('sha256').update(`${twin} ${text}`).digest('base64url').slice(0, 16),
      ...{ requests, per, burst },
      applies: appliesOf(document, setting),
    }
  })
}

/** Each request costs `per` credits, each millisecond gives `requests` of them: integers throughout. */
interface Bucket {
  credits: number
  /** milliseconds, by the clock of whoever asks */
  at: number
}

/** A bucket that is empty, and when its next token is there. */
export interface Exhausted {
  readonly limit: CompiledLimit
  /** milliseconds, at least 1 */
  readonly retryAfter: number
}

export interface Buckets {
  /**
   * Takes a token of the caller's bucket of each limit, or none of any and says which one is empty, the one
   * that takes longest. `now` in milliseconds from any start; what steps back stands still.
   */
  take(limits: readonly CompiledLimit[], caller: string, now: number): Exhausted | undefined
  readonly size: number
}

function refill(bucket: Bucket, { requests, per, burst }: CompiledLimit, now: number): void {
  const most = burst * per
  const passed = Math.max(0, now - bucket.at)
  const isFull = passed >= Math.ceil((most - bucket.credits) / requests)
  bucket.credits = isFull ? most : bucket.credits + passed * requests
  bucket.at = Math.max(bucket.at, now)
}

/** The buckets of one enforcement point: at most `most`, then the one that was asked for longest ago goes. */
export function createBuckets({ most = 100_000 }: { readonly most?: number } = {}): Buckets {
  const buckets = new Map<string, Bucket>()

  function bucketOf(limit: CompiledLimit, caller: string, now: number): Bucket {
    const key = `${limit.key} ${caller}`
    const bucket = buckets.get(key) ?? { credits: limit.burst * limit.per, at: now }
    // to the end: the first one is the oldest
    buckets.delete(key)
    buckets.set(key, bucket)
    refill(bucket, limit, now)
    return bucket
  }

  function evict(): void {
    for (const key of buckets.keys()) {
      if (buckets.size <= most) return
      buckets.delete(key)
    }
  }

  return {
    take(limits, caller, time) {
      const now = Math.floor(time)
      const taken = limits.map((limit) => ({ limit, bucket: bucketOf(limit, caller, now) }))
      evict()
      let empty: Exhausted | undefined
      for (const { limit, bucket } of taken) {
        const missing = limit.per - bucket.credits
        if (missing <= 0) continue
        const retryAfter = Math.ceil(missing / limit.requests)
        if (empty === undefined || retryAfter > empty.retryAfter) empty = { limit, retryAfter }
      }
      if (empty !== undefined) return empty
      for (const { limit, bucket } of taken) bucket.credits -= limit.per
      return undefined
    },
    get size() {
      return buckets.size
    },
  }
}

const none: readonly CompiledLimit[] = []

/** Those of a destination's limits that speak of a request. */
export function limitsFor(
  limits: readonly CompiledLimit[],
  request: Request,
): readonly CompiledLimit[] {
  return limits.length === 0 ? none : limits.filter((limit) => limit.applies(request))
}

/** One sentence for people. */
export function describeLimit({ name, index, file, line, ...limit }: CompiledLimit): string {
  const { requests, per, burst } = limit
  return `RateLimit ${name}, limit ${index} (${file}:${line}): ${requests} in ${per} ms, ${burst} at once`
}
