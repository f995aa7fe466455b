import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { destinationOf } from '../../policies/attributes/request.ts'
import { compile } from '../../policies/compile.ts'
import { readPolicies } from '../../policies/language/read.ts'
import {
  type Buckets,
  type CompiledLimit,
  createBuckets,
  limitsFor,
} from '../../policies/limits.ts'
import { parseSpiffeId } from '../../spiffe/id.ts'
import { httpRequest, tcpRequest } from '../support/policy-text.ts'

interface Document {
  readonly name?: string
  readonly namespace?: string
  /** YAML in flow style */
  readonly limits: string
  readonly more?: string
}

const text = ({ name = 'slow', namespace = 'shop', limits, more = '' }: Document) =>
  `apiVersion: castellan.dev/v1
kind: RateLimit
metadata: { name: ${name}, namespace: ${namespace} }
spec:
  limits: ${limits}
${more}`

const setOf = (...documents: readonly Document[]) =>
  compile(readPolicies([{ name: 'limits.yaml', text: documents.map(text).join('---\n') }]))

const web = parseSpiffeId('spiffe://td/ns/shop/sa/web')
const limitsOf = (...documents: readonly Document[]) =>
  setOf(...documents).guardOf(destinationOf(web, { port: 8443 })).limits
const one = (limits: string): CompiledLimit => {
  const [limit] = limitsOf({ limits })
  if (limit === undefined) throw new Error('no limit')
  return limit
}

/** Asks `times` times at once; how many may pass. */
function burstOf(buckets: Buckets, limit: CompiledLimit, now: number, times = 100): number {
  let passed = 0
  for (let i = 0; i < times; i++) if (!buckets.take([limit], 'a', now)) passed++
  return passed
}

describe('a bucket', () => {
  it('lets a burst pass, then as many as its rate, spread evenly', () => {
    const buckets = createBuckets()
    const limit = one('[{ requests: 10, per: 1s, burst: 20 }]')
    expect(burstOf(buckets, limit, 0)).toBe(20)
    expect(buckets.take([limit], 'a', 40)).toMatchObject({ retryAfter: 60 })
    expect(burstOf(buckets, limit, 99)).toBe(0)
    expect(burstOf(buckets, limit, 100)).toBe(1)
    expect(burstOf(buckets, limit, 1_100)).toBe(10)
    expect(burstOf(buckets, limit, 3_600_000)).toBe(20)
  })

  it('is each caller’s own, and each limit’s', () => {
    const buckets = createBuckets()
    const [first, second] = limitsOf({
      limits: '[{ requests: 1, per: 1h }, { requests: 2, per: 1h }]',
    })
    if (first === undefined || second === undefined) throw new Error('no limits')
    expect(buckets.take([first], 'a', 0)).toBeUndefined()
    expect(buckets.take([first], 'a', 0)?.limit).toBe(first)
    expect(buckets.take([first], 'b', 0)).toBeUndefined()
    expect(buckets.take([second], 'a', 0)).toBeUndefined()
    // the empty one of two costs the other nothing, and tells
    expect(buckets.take([first, second], 'a', 0)?.limit).toBe(first)
    expect(buckets.take([second], 'a', 0)).toBeUndefined()
    expect(buckets.take([second], 'a', 0)?.limit).toBe(second)
  })

  it('lives on in a set where its limit is the same, wherever it stands, and begins anew where it is not', () => {
    const buckets = createBuckets()
    const limit = '{ requests: 3, per: 1h, to: [{ operation: { paths: [/a] } }] }'
    const [before] = limitsOf({ limits: `[${limit}]` })
    const [, moved] = limitsOf(
      { name: 'other', limits: '[{ requests: 1, per: 1s }]' },
      { limits: `[${limit}]` },
    )
    const changed = one('[{ requests: 3, per: 2h, to: [{ operation: { paths: [/a] } }] }]')
    const twin = limitsOf({ limits: `[${limit}, ${limit}]` })[1]
    if (!before || !moved || !twin) throw new Error('no limits')
    expect(burstOf(buckets, before, 0, 2)).toBe(2)
    expect(burstOf(buckets, moved, 0)).toBe(1)
    expect(burstOf(buckets, changed, 0)).toBe(3)
    expect(burstOf(buckets, twin, 0)).toBe(3)
  })

  it('stands still when the clock steps back', () => {
    const buckets = createBuckets()
    const limit = one('[{ requests: 1, per: 1s }]')
    expect(buckets.take([limit], 'a', 10_000)).toBeUndefined()
    expect(buckets.take([limit], 'a', 1_000)).toMatchObject({ retryAfter: 1000 })
    expect(buckets.take([limit], 'a', 10_999)).toMatchObject({ retryAfter: 1 })
    expect(buckets.take([limit], 'a', 11_000)).toBeUndefined()
  })

  it('is forgotten when there are too many: the one that was asked for longest ago', () => {
    const buckets = createBuckets({ most: 3 })
    const limit = one('[{ requests: 1, per: 1h }]')
    const asks = (caller: string) => buckets.take([limit], caller, 0) === undefined
    for (const caller of ['a', 'b', 'c']) expect(asks(caller)).toBe(true)
    expect(asks('a')).toBe(false)
    expect(asks('d')).toBe(true)
    expect(buckets.size).toBe(3)
    expect([asks('a'), asks('c'), asks('d')]).toEqual([false, false, false])
    expect(asks('b')).toBe(true)
    expect(asks('a')).toBe(true)
  })

  const shape = fc.record({
    requests: fc.integer({ min: 1, max: 50 }),
    per: fc.integer({ min: 100, max: 3000 }),
    burst: fc.integer({ min: 1, max: 20 }),
  })
  const asks = fc.array(fc.record({ wait: fc.integer({ min: 0, max: 400 }), caller: fc.nat(1) }), {
    maxLength: 150,
  })

  /** What may pass in any stretch of time: `burst`, and as many as the rate gives in it. */
  const fits = ({ requests, per, burst }: CompiledLimit, passed: readonly number[], now: number) =>
    passed.every(
      (since, i) => (passed.length - i + 1) * per <= burst * per + (now - since) * requests,
    )

  it('lets pass exactly what a count over every stretch of time lets pass', () => {
    fc.assert(
      fc.property(fc.array(shape, { minLength: 1, maxLength: 3 }), asks, (shapes, steps) => {
        const limits = shapes.map(
          (it, i): CompiledLimit => ({
            ...{ name: 'shop/slow', index: i, file: 'f', line: 1, key: String(i), ...it },
            applies: () => true,
          }),
        )
        const buckets = createBuckets()
        const passed: number[][] = [[], []]
        let now = 0
        for (const { wait, caller } of steps) {
          now += wait
          const its = passed[caller] ?? []
          const empty = limits.filter((limit) => !fits(limit, its, now))
          const exhausted = buckets.take(limits, String(caller), now)
          expect(exhausted === undefined).toBe(empty.length === 0)
          if (exhausted === undefined) {
            its.push(now)
            continue
          }
          // the first moment at which all of them have a token, not one millisecond later
          const { retryAfter } = exhausted
          const isGood = (at: number) => limits.every((limit) => fits(limit, its, at))
          expect([isGood(now + retryAfter - 1), isGood(now + retryAfter)]).toEqual([false, true])
          expect(empty).toContain(exhausted.limit)
        }
      }),
    )
  })
})

describe('a limit speaks', () => {
  const asked = (documents: readonly Document[], line: string, from = 'td/ns/shop/sa/caller') => {
    const request = httpRequest(line, { from })
    const { limits } = setOf(...documents).guardOf(request.destination)
    return limitsFor(limits, request).map(({ name, index, line }) => [name, index, line])
  }
  const some = '[{ requests: 1, per: 1s }]'

  it('of destinations in its scope, as policies do', () => {
    const documents: Document[] = [
      { limits: some },
      { name: 'elsewhere', namespace: 'bank', limits: some },
      { name: 'root', namespace: 'istio-system', limits: some },
      { name: 'chosen', limits: some, more: '  selector: { matchLabels: { app: web } }\n' },
      { name: 'named', namespace: 'bank', limits: some, more: '  targets: [td/ns/shop/*]\n' },
      { name: 'others', limits: some, more: '  targets: [td/ns/bank/*]\n' },
    ]
    expect(asked(documents, 'GET /').map(([name]) => name)).toEqual([
      ...['shop/slow', 'istio-system/root', 'bank/named'],
    ])
    const labelled = destinationOf(web, { port: 1, labels: { app: 'web' } })
    const names = setOf(...documents)
      .guardOf(labelled)
      .limits.map(({ name }) => name)
    expect(names).toContain('shop/chosen')
  })

  it('of callers and operations that it names', () => {
    const limits = `
    - { requests: 1, per: 1s, principals: [td/ns/shop/*] }
    - { requests: 1, per: 1s, to: [{ operation: { methods: [POST] } }, { operation: { paths: [/a/*] } }] }
    - { requests: 1, per: 1s, principals: [td/x], to: [{ operation: { paths: [/a/*] } }] }`
    const indices = (line: string, from: string) =>
      asked([{ limits }], line, from).map(([, index]) => index)
    expect(indices('GET /b', 'td/ns/shop/sa/a')).toEqual([0])
    expect(indices('POST /b', 'td/ns/bank/sa/a')).toEqual([1])
    expect(indices('GET /a/b', 'td/x')).toEqual([1, 2])
    // any reading of the path, as for a DENY
    expect(indices('GET //a/b', 'td/y')).toEqual([1])
    expect(asked([{ limits }], 'POST /b', 'td/y')).toEqual([['shop/slow', 1, 7]])
  })

  it('of TCP connections only where it asks nothing about HTTP', () => {
    const limits = `
    - { requests: 1, per: 1s }
    - { requests: 1, per: 1s, to: [{ operation: { methods: [GET] } }] }
    - { requests: 1, per: 1s, to: [{ operation: { ports: ["8443"] } }] }
    - { requests: 1, per: 1s, to: [{ operation: { ports: ["1"] } }] }`
    const request = tcpRequest({ from: 'td/ns/shop/sa/a', port: 8443 })
    const { limits: all } = setOf({ limits }).guardOf(request.destination)
    expect(limitsFor(all, request).map(({ index }) => index)).toEqual([0, 2])
  })

  it.each(['99ms', '25h'])('never for a time of %s', (per) => {
    expect(() => setOf({ limits: `[{ requests: 1, per: ${per} }]` })).toThrow(
      /spec\.limits\[0\]\.per: at (least 100ms|most 24h)/,
    )
  })
})
