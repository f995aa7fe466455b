// The rules of the state-of-the-world variant, one by one.
import { create } from '@bufbuild/protobuf'
import { describe, expect, it } from 'vitest'
import { stateOfTheWorld } from '../../../agent/xds/state-of-the-world.ts'
import type { DiscoveryRequest } from '../../../proto/gen/envoy/service/discovery/v3/discovery_pb.js'
import { StatusSchema } from '../../../proto/gen/google/rpc/status_pb.js'
import { offerOf, request, textOf, typeUrl, type World, worldOf } from './fake-resources.ts'

function start(versions: Readonly<Record<string, string>>) {
  const protocol = stateOfTheWorld(typeUrl)
  let world: World = worldOf(versions)
  let nonce = ''
  let version = ''
  return {
    set world(next: Readonly<Record<string, string>>) {
      world = worldOf(next)
    },
    get version() {
      return version
    },
    get nonce() {
      return nonce
    },
    hear: (fields: Partial<DiscoveryRequest>) => protocol.hear(request(fields)),
    /** names as an answer to the last response */
    say: (...resourceNames: string[]) =>
      protocol.hear(request({ resourceNames, responseNonce: nonce })),
    /** what is sent, or undefined */
    tell(): string[] | undefined {
      const wanted = protocol.wanted()
      const response = wanted && protocol.tell(offerOf(world, wanted))
      if (response === undefined) return undefined
      nonce = response.nonce ?? ''
      version = response.versionInfo ?? ''
      expect(response.typeUrl).toBe(typeUrl)
      return (response.resources ?? []).map(textOf)
    },
  }
}

const status = (message: string) => create(StatusSchema, { code: 3, message })

describe('state of the world', () => {
  it('says nothing before it is asked', () => {
    expect(start({ a: '1' }).tell()).toBeUndefined()
  })

  it('an acknowledgement is not answered, a change is, under another nonce', () => {
    const stream = start({ a: '1', b: '1' })
    stream.hear({ resourceNames: ['a'] })
    expect(stream.tell()).toEqual(['a=1'])
    const { nonce, version } = stream
    stream.say('a')
    expect(stream.tell()).toBeUndefined()
    stream.world = { a: '1', b: '2' }
    expect(stream.tell()).toBeUndefined()
    stream.world = { a: '2', b: '2' }
    expect(stream.tell()).toEqual(['a=2'])
    expect(stream.nonce).not.toBe(nonce)
    expect(stream.version).not.toBe(version)
  })

  it('a stale nonce is ignored with all that came with it', () => {
    const stream = start({ a: '1', b: '1' })
    stream.hear({ resourceNames: ['a'] })
    stream.tell()
    const responseNonce = stream.nonce
    stream.world = { a: '2', b: '1' }
    stream.tell()
    expect(
      stream.hear({ resourceNames: ['b'], responseNonce, errorDetail: status('old') }),
    ).toBeUndefined()
    expect(stream.tell()).toBeUndefined()
    stream.say('a', 'b')
    expect(stream.tell()).toEqual(['a=2', 'b=1'])
  })

  it('a nonce of another stream, in the first request, is not', () => {
    const stream = start({ a: '1' })
    stream.hear({ resourceNames: ['a'], responseNonce: 'of yore', versionInfo: 'the same' })
    expect(stream.tell()).toEqual(['a=1'])
  })

  it('error_detail alone decides: what was refused is not sent again until it is another', () => {
    const stream = start({ a: 'bad', b: '1' })
    stream.hear({ resourceNames: ['a', 'b'] })
    expect(stream.tell()).toEqual(['a=bad', 'b=1'])
    const refusal = {
      resourceNames: ['a', 'b'],
      responseNonce: stream.nonce,
      // as grpc-js-xds does it when the rest was good
      versionInfo: stream.version,
      errorDetail: status('no such key'),
    }
    expect(stream.hear(refusal)?.message).toBe('no such key')
    expect(stream.tell()).toBeUndefined()
    stream.world = { a: 'good', b: '1' }
    expect(stream.tell()).toEqual(['a=good', 'b=1'])
  })

  it('a refusal and an acknowledgement may both change what is asked for', () => {
    const stream = start({ a: '1', b: '1', c: '1' })
    stream.hear({ resourceNames: ['a'] })
    stream.tell()
    stream.hear({
      resourceNames: ['a', 'b'],
      responseNonce: stream.nonce,
      errorDetail: status('no'),
    })
    expect(stream.tell()).toEqual(['a=1', 'b=1'])
    stream.say('c')
    expect(stream.tell()).toEqual(['c=1'])
  })

  it('what is named anew is sent again though it did not change', () => {
    const stream = start({ a: '1', b: '1' })
    stream.hear({ resourceNames: ['a', 'b'] })
    stream.tell()
    stream.say('a')
    expect(stream.tell()).toBeUndefined()
    stream.say('a', 'b')
    expect(stream.tell()).toEqual(['a=1', 'b=1'])
  })

  it('is silent about what there is not, until there is', () => {
    const stream = start({})
    stream.hear({ resourceNames: ['a', 'soon'] })
    expect(stream.tell()).toBeUndefined()
    stream.world = { soon: '' }
    expect(stream.tell()).toBeUndefined()
    stream.world = { soon: '1' }
    expect(stream.tell()).toEqual(['soon=1'])
    stream.world = {}
    expect(stream.tell()).toBeUndefined()
    stream.world = { a: '1' }
    expect(stream.tell()).toEqual(['a=1'])
  })

  it('where an answer is all there is, what has gone is told, once', () => {
    const protocol = stateOfTheWorld(typeUrl)
    const tell = (versions: Readonly<Record<string, string>>) => {
      const wanted = protocol.wanted() ?? { names: new Set(), everything: false }
      return protocol.tell({ ...offerOf(worldOf(versions), wanted), isWhole: true })
    }
    protocol.hear(request({ resourceNames: ['a', 'b'] }))
    expect(tell({ a: '1', b: '1' })?.resources?.length).toBe(2)
    expect(tell({ a: '1' })?.resources?.length).toBe(1)
    expect(tell({ a: '1' })).toBeUndefined()
    expect(tell({})?.resources).toEqual([])
    expect(tell({})).toBeUndefined()
  })

  it('no names at first are everything, also later; a name ends that, and then no names are nothing', () => {
    const stream = start({ a: '1', 'alias:a': '1' })
    stream.hear({ resourceNames: [] })
    expect(stream.tell()).toEqual(['a=1'])
    stream.say()
    expect(stream.tell()).toBeUndefined()
    stream.world = { a: '1', b: '1', 'alias:a': '1' }
    expect(stream.tell()).toEqual(['a=1', 'b=1'])
    stream.world = { b: '1', 'alias:a': '1' }
    expect(stream.tell()).toEqual(['b=1'])
    stream.say('alias:a')
    expect(stream.tell()).toEqual(['alias:a=1'])
    stream.say()
    stream.world = { b: '2', 'alias:a': '2' }
    expect(stream.tell()).toBeUndefined()
  })

  it('a star is everything, and may stand beside names; empty names are none', () => {
    const stream = start({ a: '1', b: '1', 'alias:a': '1' })
    stream.hear({ resourceNames: ['*', 'alias:a', ''] })
    expect(stream.tell()).toEqual(['a=1', 'b=1', 'alias:a=1'])
    stream.say()
    stream.world = { a: '2' }
    expect(stream.tell()).toBeUndefined()
  })

  it('names are bounded', () => {
    const resourceNames = Array.from({ length: 4097 }, (_, i) => `n${i}`)
    const stream = start({})
    expect(() => stream.hear({ resourceNames })).toThrow('more than 4096 names on one stream')
  })
})
