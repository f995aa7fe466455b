// The rules of the incremental variant, one by one, and its state against a naive model.
import { create } from '@bufbuild/protobuf'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { delta } from '../../../agent/xds/delta.ts'
import type { DeltaDiscoveryRequest } from '../../../proto/gen/envoy/service/discovery/v3/discovery_pb.js'
import { StatusSchema } from '../../../proto/gen/google/rpc/status_pb.js'
import { deltaRequest, offerOf, textOf, typeUrl, type World, worldOf } from './fake-resources.ts'

interface Said {
  readonly added: string[]
  readonly removed: string[]
}

function start(first: World) {
  const protocol = delta(typeUrl)
  let world = first
  let nonce = ''
  return {
    set world(next: World) {
      world = next
    },
    get nonce() {
      return nonce
    },
    hear: (fields: Partial<DeltaDiscoveryRequest>) => protocol.hear(deltaRequest(fields)),
    tell(): Said | undefined {
      const wanted = protocol.wanted()
      const response = wanted && protocol.tell(offerOf(world, wanted))
      if (response === undefined) return undefined
      nonce = response.nonce ?? ''
      const added = (response.resources ?? []).map((it) => {
        expect(textOf(it.resource ?? {})).toBe(`${it.name}=${it.version}`)
        return `${it.name}=${it.version}`
      })
      return { added, removed: [...(response.removedResources ?? [])] }
    },
  }
}

const subscribe = (...resourceNamesSubscribe: string[]) => ({ resourceNamesSubscribe })
const unsubscribe = (...resourceNamesUnsubscribe: string[]) => ({ resourceNamesUnsubscribe })
const added = (...list: string[]): Said => ({ added: list, removed: [] })
const removed = (...list: string[]): Said => ({ added: [], removed: list })

describe('delta', () => {
  it('sends what changed, and that only', () => {
    const stream = start(worldOf({ a: '1', b: '1' }))
    stream.hear(subscribe('a', 'b'))
    expect(stream.tell()).toEqual(added('a=1', 'b=1'))
    stream.hear({ responseNonce: stream.nonce })
    expect(stream.tell()).toBeUndefined()
    stream.world = worldOf({ a: '1', b: '2', c: '1' })
    expect(stream.tell()).toEqual(added('b=2'))
  })

  it('what there is not is said to be removed at once, once; what is on its way is not', () => {
    const stream = start(worldOf({ soon: '' }))
    stream.hear(subscribe('a', 'soon'))
    expect(stream.tell()).toEqual(removed('a'))
    expect(stream.tell()).toBeUndefined()
    stream.world = worldOf({ a: '1', soon: '1' })
    expect(stream.tell()).toEqual(added('a=1', 'soon=1'))
    stream.world = worldOf({ soon: '' })
    expect(stream.tell()).toEqual(removed('a'))
    stream.hear(subscribe('a'))
    expect(stream.tell()).toEqual(removed('a'))
  })

  it('what is asked for anew is sent again though it did not change', () => {
    const stream = start(worldOf({ a: '1' }))
    stream.hear(subscribe('a'))
    stream.tell()
    stream.hear(unsubscribe('a'))
    expect(stream.tell()).toBeUndefined()
    stream.hear(subscribe('a'))
    expect(stream.tell()).toEqual(added('a=1'))
    stream.hear(subscribe('a'))
    expect(stream.tell()).toEqual(added('a=1'))
  })

  it('a stale nonce does not make a subscription void', () => {
    const stream = start(worldOf({ a: '1', b: '1' }))
    stream.hear(subscribe('a'))
    stream.tell()
    stream.hear({ ...subscribe('b'), responseNonce: 'of yore' })
    expect(stream.tell()).toEqual(added('b=1'))
  })

  it('what was refused is not sent again until it is another; the refusal may subscribe', () => {
    const stream = start(worldOf({ a: 'bad', b: '1' }))
    stream.hear(subscribe('a'))
    stream.tell()
    const errorDetail = create(StatusSchema, { code: 3, message: 'no such key' })
    const refusal = { responseNonce: stream.nonce, errorDetail, ...subscribe('b') }
    expect(stream.hear(refusal)?.message).toBe('no such key')
    expect(stream.tell()).toEqual(added('b=1'))
    stream.world = worldOf({ a: 'good', b: '1' })
    expect(stream.tell()).toEqual(added('a=good'))
  })

  it('who comes back is told the differences', () => {
    const stream = start(worldOf({ a: '1', b: '2', d: '1' }))
    const initialResourceVersions = { a: '1', b: '1', c: '1', other: '1' }
    stream.hear({ ...subscribe('a', 'b', 'c', 'd'), initialResourceVersions })
    expect(stream.tell()).toEqual({ added: ['b=2', 'd=1'], removed: ['c'] })
  })

  it('nothing at first and a star are everything, without what has a name of its own beside', () => {
    for (const first of [{}, subscribe('*')]) {
      const stream = start(worldOf({ a: '1', b: '1', 'alias:a': '1' }))
      stream.hear({ ...first, initialResourceVersions: { a: '1', gone: '1' } })
      expect(stream.tell()).toEqual({ added: ['b=1'], removed: ['gone'] })
      stream.hear(subscribe('alias:a'))
      expect(stream.tell()).toEqual(added('alias:a=1'))
      stream.world = worldOf({ b: '1', c: '1', 'alias:a': '1' })
      expect(stream.tell()).toEqual({ added: ['c=1'], removed: ['a'] })
    }
  })

  it('a name that ends under the wildcard is told as what it still is, or as removed', () => {
    const stream = start(worldOf({ a: '1', 'alias:a': '1' }))
    stream.hear(subscribe('*', 'a', 'alias:a'))
    stream.tell()
    stream.hear(unsubscribe('a', 'alias:a'))
    expect(stream.tell()).toEqual({ added: ['a=1'], removed: ['alias:a'] })
  })

  it('without the wildcard only what is named is followed', () => {
    const stream = start(worldOf({ a: '1', b: '1' }))
    stream.hear(subscribe('*', 'a'))
    stream.tell()
    stream.hear(unsubscribe('*'))
    stream.world = worldOf({ a: '2', b: '2' })
    expect(stream.tell()).toEqual(added('a=2'))
    stream.hear(unsubscribe('never asked for'))
    expect(stream.tell()).toBeUndefined()
  })

  it('subscriptions do not add up without end', () => {
    const stream = start(worldOf({}))
    const names = Array.from({ length: 4097 }, (_, i) => `n${i}`)
    expect(() => stream.hear(subscribe(...names))).toThrow('more than 4096 names on one stream')
  })
})

/** Everything a client can do, and the world, as a list of steps. */
type Step =
  | { readonly do: 'subscribe' | 'unsubscribe'; readonly names: readonly string[] }
  | { readonly do: 'world'; readonly versions: Readonly<Record<string, string>> }
  | { readonly do: 'reconnect' }

const name = fc.constantFrom('a', 'b', 'c', 'alias:x', '*')
const version = fc.constantFrom('', '1', '2', '3')
const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    fc.record({
      do: fc.constantFrom('subscribe' as const, 'unsubscribe' as const),
      names: fc.array(name, { minLength: 1, maxLength: 3 }),
    }),
    fc.record({
      do: fc.constant('world' as const),
      versions: fc.dictionary(fc.constantFrom('a', 'b', 'c', 'alias:x'), version),
    }),
    fc.record({ do: fc.constant('reconnect' as const) }),
  ),
  { maxLength: 30 },
)

/** A client that believes what it is told, and the rules in their plainest form. */
function createModel(first: readonly string[]) {
  const names = new Set(first.filter((it) => it !== '*'))
  let everything = first.length === 0 || first.includes('*')
  const has = new Map<string, string>()
  return {
    names,
    has,
    get everything() {
      return everything
    },
    subscribe(list: readonly string[]) {
      for (const it of list) {
        if (it === '*') everything = true
        else names.add(it)
      }
    },
    unsubscribe(list: readonly string[]) {
      for (const it of list) {
        if (it === '*') everything = false
        else names.delete(it)
      }
      // a client drops what it asks for no more
      for (const it of [...has.keys()]) if (!everything && !names.has(it)) has.delete(it)
    },
    hear(said: Said | undefined) {
      for (const text of said?.added ?? []) {
        const [key = '', value = ''] = text.split('=')
        has.set(key, value)
      }
      for (const it of said?.removed ?? []) has.delete(it)
    },
    /** what it should have of `world`; what is on its way may be as it was */
    should(world: World): Map<string, string> {
      const wanted = [...world].filter(([it]) => names.has(it) || (everything && !it.includes(':')))
      return new Map(wanted.map(([it, v]) => [it, v === '' ? (has.get(it) ?? '') : v]))
    },
  }
}

describe('delta, whatever happens', () => {
  it('a client that believes what it is told has what there is, and hears nothing twice', () => {
    fc.assert(
      fc.property(fc.array(name, { maxLength: 3 }), steps, (first, list) => {
        let world = worldOf({ a: '1', 'alias:x': '1' })
        let stream = start(world)
        const model = createModel(first)
        /** asked for anew, and not told of since */
        const mayRepeat = new Set<string>()
        stream.hear(subscribe(...first))
        model.hear(stream.tell())
        for (const step of list) {
          switch (step.do) {
            case 'world':
              world = worldOf(step.versions)
              stream.world = world
              break
            case 'subscribe':
              for (const it of step.names) mayRepeat.add(it)
              model.subscribe(step.names)
              stream.hear(subscribe(...step.names))
              break
            case 'unsubscribe':
              for (const it of step.names) mayRepeat.add(it)
              model.unsubscribe(step.names)
              stream.hear(unsubscribe(...step.names))
              break
            case 'reconnect': {
              // who wants nothing any more has no reason to come back: nothing would mean everything
              if (!model.everything && model.names.size === 0) continue
              stream = start(world)
              mayRepeat.clear()
              const again = [...(model.everything ? ['*'] : []), ...model.names]
              const initialResourceVersions = Object.fromEntries(model.has)
              stream.hear({ ...subscribe(...again), initialResourceVersions })
            }
          }
          const said = stream.tell()
          for (const text of said?.added ?? []) {
            const [key = '', value] = text.split('=')
            if (model.has.get(key) === value) expect(mayRepeat).toContain(key)
            mayRepeat.delete(key)
          }
          model.hear(said)
          const has = new Map([...model.has].filter(([, v]) => v !== ''))
          const should = new Map([...model.should(world)].filter(([, v]) => v !== ''))
          expect(Object.fromEntries(has)).toEqual(Object.fromEntries(should))
          expect(stream.tell()).toBeUndefined()
        }
      }),
      { numRuns: 500 },
    )
  })
})
