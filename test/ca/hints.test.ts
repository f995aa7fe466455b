import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { hintsCollide } from '../../ca/hints.ts'
import type { EntryRow } from '../../ca/store/model.ts'
import type { Store } from '../../ca/store/store.ts'
import { parseSpiffeId } from '../../spiffe/id.ts'
import { testEntry } from '../support/rows.ts'
import { testStore } from '../support/store.ts'

let made = 0
const entry = (hint: string, selectors: string, parent = '/spire/agent/a'): EntryRow =>
  testEntry(`e${made++}`, {
    hint,
    parentId: parseSpiffeId(`spiffe://example.org${parent}`),
    selectors: selectors.split(' ').map((text) => {
      const colon = text.indexOf(':')
      return { type: text.slice(0, colon), value: text.slice(colon + 1) }
    }),
  })

describe('hints', () => {
  it.each([
    ['the same selectors', 'a', 'unix:uid:1', 'a', 'unix:uid:1', true],
    ['selectors that may meet', 'a', 'unix:uid:1', 'a', 'unix:path:/x', true],
    ['one set within the other', 'a', 'unix:uid:1 unix:path:/x', 'a', 'unix:uid:1', true],
    [
      'selectors that cannot meet',
      'a',
      'unix:uid:1 unix:path:/x',
      'a',
      'unix:uid:1 unix:path:/y',
      false,
    ],
    [
      'selectors of which there may be several',
      'a',
      'unix:supplementary_gid:1',
      'a',
      'unix:supplementary_gid:2',
      true,
    ],
    ['another hint', 'a', 'unix:uid:1', 'b', 'unix:uid:1', false],
    ['no hint', '', 'unix:uid:1', '', 'unix:uid:1', false],
  ])('%s', (_what, hint, selectors, otherHint, others, collide) => {
    const [one, other] = [entry(hint, selectors), entry(otherHint, others)]
    expect(hintsCollide(one, other)).toBe(collide)
    expect(hintsCollide(other, one)).toBe(collide)
    expect(hintsCollide(one, one)).toBe(false)
  })

  it('below another parent never meet', () => {
    const other = entry('a', 'unix:uid:1', '/spire/agent/b')
    expect(hintsCollide(entry('a', 'unix:uid:1'), other)).toBe(false)
  })
})

describe('an entry whose hint collides', () => {
  let store: Store
  beforeAll(async () => {
    store = await testStore()
  })
  afterAll(() => store[Symbol.asyncDispose]())

  it('WA-13 is refused when it is created, and when an update would make it so', async () => {
    const first = entry('front', 'unix:uid:1')
    const twin = entry('front', 'unix:path:/x')
    await store.entries.create(first)
    const message = `hint "front" is that of entry ${first.id}, which the same workload may have`
    await expect(store.entries.create(twin)).rejects.toThrow(message)
    await store.entries.create({ ...twin, hint: 'back' })
    await expect(
      store.entries.update(twin.id, (known) => ({ ...known, hint: 'front' })),
    ).rejects.toThrow(message)
    expect((await store.entries.some([twin.id]))[0]?.hint).toBe('back')
    await store.entries.update(first.id, (known) => ({ ...known, revision: 1 }))
  })

  it('is found when two are created at once', async () => {
    const results = await Promise.allSettled(
      ['unix:uid:7', 'unix:path:/seven'].map((text) => store.entries.create(entry('seven', text))),
    )
    expect(results.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
  })
})
