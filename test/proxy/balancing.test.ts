import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { chooseBy } from '../../proxy/balancing.ts'
import { createBudget } from '../../proxy/budget.ts'
import { createEndpoints, type Use } from '../../proxy/endpoints.ts'

const chance = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })
const loads = fc
  .array(fc.nat(20), { minLength: 1, maxLength: 12 })
  .map((all) => all.map((inFlight, name) => ({ inFlight, name })))
const none: ReadonlySet<string> = new Set()

/** A source of chance that says what it was told, in turn. */
function told(...values: readonly number[]): () => number {
  let at = 0
  return () => values[at++ % values.length] ?? 0
}

describe('chooseBy', () => {
  it('least-request takes one of two others that is no more loaded than the other', () => {
    fc.assert(
      fc.property(loads, chance, chance, (candidates, one, other) => {
        const chosen = chooseBy('least-request', told(one, other))(candidates)
        if (chosen === undefined) throw new Error('nothing chosen')
        // the oracle: some pair of two different ones of which it is the less loaded
        const pairs = candidates.filter((it) => it !== chosen && it.inFlight >= chosen.inFlight)
        expect(pairs.length + Number(candidates.length === 1)).toBeGreaterThan(0)
      }),
    )
  })

  it('least-request never takes the one that is loaded more than all others', () => {
    fc.assert(
      fc.property(loads, chance, chance, fc.nat(), (others, one, other, at) => {
        const worst = { inFlight: 1000, name: -1 }
        const candidates = [...others]
        candidates.splice(at % (others.length + 1), 0, worst)
        expect(chooseBy('least-request', told(one, other))(candidates)).not.toBe(worst)
      }),
    )
  })

  it('round-robin takes each once in each round', () => {
    fc.assert(
      fc.property(loads, fc.integer({ min: 1, max: 5 }), (candidates, rounds) => {
        const choose = chooseBy('round-robin', Math.random)
        for (let round = 0; round < rounds; round++) {
          const taken = candidates.map(() => choose(candidates)?.name)
          expect(new Set(taken).size).toBe(candidates.length)
        }
      }),
    )
  })

  it('random takes any, by chance alone', () => {
    fc.assert(
      fc.property(loads, (candidates) => {
        const taken = candidates.map((_, i) =>
          chooseBy('random', () => i / candidates.length)(candidates),
        )
        // rounding may name a neighbour
        expect(new Set(taken).size).toBeGreaterThanOrEqual(Math.ceil(candidates.length / 2))
      }),
    )
  })

  for (const name of ['least-request', 'round-robin', 'random'] as const) {
    it(`${name} takes none of none, and the only one there is`, () => {
      const choose = chooseBy(name, () => 0.999_999)
      expect(choose([])).toBeUndefined()
      expect(choose([{ inFlight: 7 }])).toEqual({ inFlight: 7 })
    })
  }
})

const address = (port: number) => ({ host: '127.0.0.1', port })
const choices = ['least-request', 'round-robin', 'random'] as const

type Step =
  | { readonly kind: 'put'; readonly ports: readonly number[] }
  | { readonly kind: 'use'; readonly tried: readonly number[] }
  | { readonly kind: 'end'; readonly which: number }
const ports = fc.uniqueArray(fc.integer({ min: 1, max: 6 }), { maxLength: 6 })
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ kind: fc.constant('put' as const), ports }),
  fc.record({ kind: fc.constant('use' as const), tried: ports }),
  fc.record({ kind: fc.constant('end' as const), which: fc.nat() }),
)

describe('endpoints', () => {
  it('counts what is under way, and picks what is there and untried, if there is one', () => {
    fc.assert(
      fc.property(fc.constantFrom(...choices), fc.array(step, { maxLength: 40 }), (name, steps) => {
        const spec = { loadBalancing: name }
        const endpoints = createEndpoints({ spec, now: () => 0, random: Math.random })
        let there: readonly number[] = []
        let uses: Use[] = []
        for (const it of steps) {
          if (it.kind === 'put') {
            const gone = endpoints.put(it.ports.map(address))
            const expected = there.filter((port) => !it.ports.includes(port))
            expect(gone).toEqual(expected.map((port) => `127.0.0.1:${port}`))
            // of one that is there again nothing is known
            uses = uses.filter(({ endpoint }) => it.ports.includes(endpoint.address.port))
            there = it.ports
          } else if (it.kind === 'use') {
            const tried = new Set(it.tried.map((port) => `127.0.0.1:${port}`))
            const use = endpoints.use(tried)
            const fresh = there.filter((port) => !it.tried.includes(port))
            expect(endpoints.hasOther(tried)).toBe(fresh.length > 0)
            if (there.length === 0) expect(use).toBeUndefined()
            else expect(fresh.length === 0 ? there : fresh).toContain(use?.endpoint.address.port)
            if (use !== undefined) uses.push(use)
          } else {
            const use = uses[it.which % Math.max(1, uses.length)]
            use?.[Symbol.dispose]()
            use?.[Symbol.dispose]()
            uses = uses.filter((other) => other !== use)
          }
          for (const port of there) {
            const key = `127.0.0.1:${port}`
            const expected = uses.filter(({ endpoint }) => endpoint.key === key).length
            expect(endpoints.inFlight(key)).toBe(expected)
          }
        }
      }),
    )
  })

  it('spreads requests that last evenly', () => {
    const spec = { loadBalancing: 'least-request' } as const
    const endpoints = createEndpoints({ spec, now: () => 0, random: Math.random })
    endpoints.put([1, 2, 3].map(address))
    for (let i = 0; i < 300; i++) endpoints.use(none)
    // two choices keep even the worst of 300 within a few of the mean
    for (const port of [1, 2, 3]) {
      expect(Math.abs(endpoints.inFlight(`127.0.0.1:${port}`) - 100)).toBeLessThan(15)
    }
  })
})

describe('budget', () => {
  it('lets a fifth of what is under way be asked again, at least three, and no more requests than its limit', () => {
    const moves = fc.array(fc.constantFrom('enter', 'leave', 'again', 'over'), { maxLength: 200 })
    fc.assert(
      fc.property(moves, fc.integer({ min: 1, max: 60 }), (all, most) => {
        const budget = createBudget(most)
        const [inside, repeated]: [(() => void)[], (() => void)[]] = [[], []]
        for (const move of all) {
          if (move === 'leave') inside.pop()?.()
          if (move === 'over') repeated.pop()?.()
          if (move === 'enter') {
            const leave = budget.enter()
            expect(leave !== undefined).toBe(inside.length < most)
            if (leave !== undefined) inside.push(leave)
          }
          if (move === 'again') {
            const over = budget.again()
            const allowed = inside.length < 20 ? 3 : Math.floor(inside.length / 5)
            expect(over !== undefined).toBe(repeated.length < allowed)
            if (over !== undefined) repeated.push(over)
          }
        }
      }),
    )
  })

  it('counts what is over once', () => {
    const budget = createBudget(1)
    const leave = budget.enter()
    expect(budget.enter()).toBeUndefined()
    leave?.()
    leave?.()
    const second = budget.enter()
    expect(second).toBeDefined()
    leave?.()
    expect(budget.enter()).toBeUndefined()
  })
})
