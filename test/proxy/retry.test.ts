import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { backoffBefore, conditionsOf, isWell, mayAskAgain } from '../../proxy/retry.ts'
import type { RetryCondition } from '../../proxy-spec/outbound.ts'

const all = ['connect-failure', 'refused-stream', 'reset', 'gateway-error', 'unavailable'] as const
const methods = ['GET', 'HEAD', 'PUT', 'DELETE', 'OPTIONS', 'TRACE', 'POST', 'PATCH', 'BREW', '']

/** Of every condition that is listed: for which methods, and whether gRPC's POST too. */
const safe: Readonly<Record<RetryCondition, readonly [methods: string, grpc: boolean]>> = {
  'connect-failure': ['any', true],
  'refused-stream': ['any', true],
  reset: ['idempotent', false],
  'gateway-error': ['idempotent', false],
  unavailable: ['idempotent', true],
}

describe('mayAskAgain', () => {
  for (const condition of all) {
    it(`knows for whom ${condition} is safe`, () => {
      const [which, grpc] = safe[condition]
      const again = (method: string, isGrpc = false, on: readonly RetryCondition[] = all) =>
        mayAskAgain({ on: [...on] }, [condition], { method, isGrpc })
      const expected = methods.map((it) => which === 'any' || methods.indexOf(it) < 6)
      expect(methods.map((method) => again(method))).toEqual(expected)
      expect(again('POST', true)).toBe(grpc)
      const others = all.filter((it) => it !== condition)
      expect(methods.some((method) => again(method, true, others))).toBe(false)
    })
  }

  it('asks nothing again that has no reason to be', () => {
    expect(mayAskAgain({ on: [...all] }, [], { method: 'GET', isGrpc: true })).toBe(false)
  })
})

describe('an answer', () => {
  it('is a reason by its status, or by that of gRPC', () => {
    expect(
      [200, 404, 500, 501, 502, 503, 504].map((status) => conditionsOf({ status })[0]),
    ).toEqual([
      ...[undefined, undefined, undefined, undefined],
      ...['gateway-error', 'gateway-error', 'gateway-error'],
    ])
    expect(conditionsOf({ status: 200, grpcStatus: '14' })).toEqual(['unavailable'])
    expect(conditionsOf({ status: 200, grpcStatus: '8' })).toEqual([])
  })

  it('speaks against its endpoint when the fault is the server’s', () => {
    expect([200, 404, 499, 500, 503].map((status) => isWell({ status }))).toEqual([
      ...[true, true, true, false],
      false,
    ])
    const codes = Array.from({ length: 17 }, (_, code) => String(code))
    const faults = codes.filter((grpcStatus) => !isWell({ status: 200, grpcStatus }))
    expect(faults).toEqual(['2', '4', '12', '13', '14', '15'])
  })
})

describe('backoffBefore', () => {
  it('is any time up to a limit that doubles up to tenfold', () => {
    const random = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 10 }),
        fc.integer({ min: 1, max: 60_000 }),
        random,
        (next, backoff, chance) => {
          const wait = backoffBefore(next, { backoff }, () => chance)
          const limits = [1, 2, 4, 8, 10, 10, 10, 10, 10, 10]
          expect(wait).toBeCloseTo(chance * backoff * (limits[next - 1] ?? 0))
        },
      ),
    )
  })
})
