import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type AgentFacts, createEntryIndex } from '../../ca/entry-index.ts'
import type { EntryRow } from '../../ca/store/model.ts'
import { parseSpiffeId, parseTrustDomain } from '../../spiffe/id.ts'
import { testEntry } from '../support/rows.ts'

const trustDomain = parseTrustDomain('example.org')
const idOf = (path: string) => parseSpiffeId(`spiffe://example.org${path}`)
const server = idOf('/spire/server')
const now = 1_000_000
const [a, b] = [idOf('/spire/agent/a'), idOf('/spire/agent/b')]
const text = ({ type, value }: { type: string; value: string }) => `${type}:${value}`

/** SPIRE's rule as it is told: the least set that is closed under "child of what is in it". */
function oracle(agent: AgentFacts, entries: readonly EntryRow[]): Set<string> {
  const alive = entries.filter((it) => it.expiresAt === 0 || it.expiresAt * 1000 > now)
  const own = agent.selectors.map(text)
  const roots: string[] = [agent.id]
  for (const it of alive) {
    const isAlias = it.parentId === server && it.selectors.every((one) => own.includes(text(one)))
    if (isAlias) roots.push(it.spiffeId)
  }
  const found = new Set<EntryRow>()
  for (let size = -1; size < found.size; ) {
    size = found.size
    const parents = [...roots, ...[...found].map((it) => it.spiffeId)]
    for (const it of alive) if (parents.includes(it.parentId)) found.add(it)
  }
  return new Set([...found].map(({ id }) => id))
}

const ids = ['/w/1', '/w/2', '/w/3', '/w/4'].map(idOf)
const selector = fc.constantFrom('os:linux', 'zone:x', 'zone:y').map((it) => {
  const [type = '', value = ''] = it.split(':')
  return { type, value }
})
const row = fc.record({
  id: fc.constantFrom('e1', 'e2', 'e3', 'e4', 'e5', 'e6', 'e7', 'e8'),
  spiffeId: fc.constantFrom(...ids),
  parentId: fc.constantFrom(a, b, server, ...ids),
  selectors: fc.array(selector, { minLength: 1, maxLength: 2 }),
  expiresAt: fc.constantFrom(0, 0, 0, 999, 1000, 1001),
})
const step = fc.oneof(
  { weight: 4, arbitrary: row.map((it) => testEntry(it.id, it)) },
  { weight: 1, arbitrary: fc.constantFrom('e1', 'e2', 'e3', 'e4') },
)
const agents = fc.record({
  id: fc.constantFrom(a, b),
  selectors: fc.array(selector, { maxLength: 3 }),
})

describe('the index of entries', () => {
  it('agrees with the naive rule after any sequence of changes', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 25 }), agents, (steps, agent) => {
        const index = createEntryIndex(trustDomain, [])
        const known = new Map<string, EntryRow>()
        for (const it of steps) {
          if (typeof it === 'string') {
            index.remove(it)
            known.delete(it)
          } else {
            index.put(it)
            known.set(it.id, it)
          }
        }
        const wanted = oracle(agent, [...known.values()])
        const found = index.authorized(agent, now).map(({ id }) => id)
        expect(new Set(found)).toEqual(wanted)
        expect(found).toHaveLength(wanted.size)
        for (const entry of known.values()) {
          expect(index.isAuthorized(agent, entry, now)).toBe(wanted.has(entry.id))
        }
        expect(index.size).toBe(known.size)
      }),
      { numRuns: 400 },
    )
  })

  it('gives an agent its children, theirs in turn, and those of its aliases', () => {
    const alias = testEntry('alias', {
      parentId: server,
      selectors: [{ type: 'zone', value: 'x' }],
    })
    const child = testEntry('child')
    const grandchild = testEntry('grandchild', { parentId: child.spiffeId })
    const ofAlias = testEntry('of-alias', { parentId: alias.spiffeId })
    const foreign = testEntry('foreign', { parentId: b })
    const index = createEntryIndex(trustDomain, [alias, child, grandchild, ofAlias, foreign])
    const names = (agent: AgentFacts) =>
      index
        .authorized(agent, now)
        .map(({ id }) => id)
        .sort()
    const inZone = { id: a, selectors: [{ type: 'zone', value: 'x' }] }
    expect(names(inZone)).toEqual(['child', 'grandchild', 'of-alias'])
    expect(names({ id: a, selectors: [] })).toEqual(['child', 'grandchild'])
    expect(names({ id: b, selectors: [] })).toEqual(['foreign'])
    index.remove('child')
    expect(names(inZone)).toEqual(['of-alias'])
  })

  it('ends where entries are each other’s parents', () => {
    const [one, two] = [
      testEntry('one', { parentId: idOf('/two') }),
      testEntry('two', { parentId: idOf('/one') }),
    ]
    const index = createEntryIndex(trustDomain, [one, two])
    expect(index.authorized({ id: a, selectors: [] }, now)).toEqual([])
    expect(index.isAuthorized({ id: a, selectors: [] }, one, now)).toBe(false)
  })

  it('finds entries by SPIFFE ID, replaces them by id, and leaves expired ones out', () => {
    const id = idOf('/web')
    const index = createEntryIndex(trustDomain, [testEntry('e', { spiffeId: id })])
    index.put(testEntry('e', { spiffeId: id, hint: 'new' }))
    index.put(testEntry('f', { spiffeId: id, expiresAt: now / 1000 }))
    expect(index.bySpiffeId(id, now).map(({ hint }) => hint)).toEqual(['new'])
    expect(index.bySpiffeId(id, now - 1).map((it) => it.id)).toEqual(['e', 'f'])
    expect(index.get('e')?.hint).toBe('new')
    expect([...index.all()].map((it) => it.id)).toEqual(['e', 'f'])
    index.put(testEntry('e', { spiffeId: idOf('/other') }))
    expect(index.bySpiffeId(id, now)).toEqual([])
  })
})
