import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { afterAll, describe, expect, it } from 'vitest'
import { startX509Source, type X509Context } from '../../client/x509-source.ts'
import {
  SpiffeWorkloadAPI,
  type X509SVIDResponseSchema,
} from '../../proto/gen/spiffe/workload/workloadapi_pb.js'
import { startGrpcServer } from '../../runtime/grpc/server.ts'
import { service } from '../../runtime/grpc/service.ts'
import { createLatest } from '../../runtime/lifecycle.ts'
import { bundleToDer, type X509Bundle } from '../../spiffe/bundle.ts'
import { fingerprintOf } from '../../spiffe/certificate.ts'
import { explain, IdentityError } from '../../spiffe/errors.ts'
import { parseTrustDomain } from '../../spiffe/id.ts'
import { createFakeClock, type FakeClock } from '../support/fake-clock.ts'
import { makeTestAuthority } from '../support/mesh.ts'

type Answer = MessageInitShape<typeof X509SVIDResponseSchema>

const folder = mkdtempSync(join(tmpdir(), 'castellan-source-'))
afterAll(() => rmSync(folder, { recursive: true }))

const authority = makeTestAuthority('td')
const other = makeTestAuthority('other')
const patience = () => AbortSignal.timeout(60_000)

function svidOf(
  id: string,
  changes: { spiffeId?: string; x509SvidKey?: Uint8Array; hint?: string } = {},
) {
  const { chain, key } = authority.issue(id)
  return {
    spiffeId: id,
    x509Svid: Buffer.concat(chain),
    x509SvidKey: key.export({ format: 'der', type: 'pkcs8' }),
    bundle: bundleToDer(authority.bundle),
    ...changes,
  }
}
const answer = (id: string): Answer => ({ svids: [svidOf(id)] })

/** A Workload API that says what the test pushes, an error by ending the stream, and a source on it. */
async function start(name: string) {
  const path = join(folder, `${name}.sock`)
  const fake = createFakeClock()
  let waits = 0
  const clock: FakeClock = {
    ...fake,
    sleep(ms, options) {
      waits++
      return fake.sleep(ms, options)
    },
  }
  const headers: (readonly string[] | undefined)[] = []
  let feed: ((next: Answer | IdentityError) => void) | undefined
  let pending: Answer | IdentityError | undefined
  const server = await startGrpcServer({
    listen: { path, mode: 0o600 },
    peer: () => undefined,
    drainTimeout: 100,
    services: [
      service(SpiffeWorkloadAPI, {
        async *fetchX509SVID(_, { metadata, signal }) {
          headers.push(metadata.get('workload.spiffe.io'))
          const mine = createLatest<Answer | IdentityError>(signal)
          feed = mine.push
          if (pending !== undefined) mine.push(pending)
          pending = undefined
          for await (const next of mine) {
            if (next instanceof IdentityError) throw next
            yield next
          }
        },
      }),
    ],
  })
  const troubles: unknown[] = []
  let troubled = Promise.withResolvers<void>()
  const source = startX509Source(
    { kind: 'unix', path },
    {
      clock,
      onTrouble: (error) => {
        troubles.push(error)
        feed = undefined
        troubled.resolve()
      },
    },
  )
  return {
    server,
    source,
    clock,
    headers,
    troubles,
    /** to the stream that is open, or to the next one */
    say(next: Answer | IdentityError) {
      if (feed === undefined) pending = next
      else feed(next)
    },
    /** Resolves with the change that `say` made. */
    change(next: Answer | IdentityError): Promise<X509Context | undefined> {
      const changed = Promise.withResolvers<X509Context | undefined>()
      const subscription = source.subscribe((context) => {
        subscription[Symbol.dispose]()
        changed.resolve(context)
      })
      this.say(next)
      return changed.promise
    },
    async trouble(next: Answer | IdentityError): Promise<unknown> {
      troubled = Promise.withResolvers<void>()
      this.say(next)
      await troubled.promise
      return troubles.at(-1)
    },
    /** how often the source began to wait for its next attempt */
    waits: () => waits,
    /** Lets the source try again. */
    async retry() {
      await clock.asleep()
      clock.advance(60_000)
    },
    async [Symbol.asyncDispose]() {
      await source[Symbol.asyncDispose]()
      await server[Symbol.asyncDispose]()
    },
  }
}

const fingerprintsOf = (bundle: X509Bundle | undefined) =>
  bundle?.authorities.map(({ der }) => fingerprintOf(der))

const idOf = (context: X509Context | undefined) => context?.svids[0].id

describe('an X509 source', () => {
  it('has the first context whole, and asks with the security header', async () => {
    await using api = await start('first')
    expect(api.source.current()).toBeUndefined()
    const spare = svidOf('spiffe://td/spare', { hint: 'spare' })
    const again = svidOf('spiffe://td/again', { hint: 'spare' })
    api.say({
      svids: [svidOf('spiffe://td/a'), spare, again, svidOf('spiffe://td/b')],
      federatedBundles: { 'spiffe://other': bundleToDer(other.bundle) },
    })
    const context = await api.source.ready(patience())
    // WA-13: of two with one hint the first
    const wanted = ['spiffe://td/a', 'spiffe://td/spare', 'spiffe://td/b']
    expect(context.svids.map(({ id }) => id)).toEqual(wanted)
    expect(api.source.current()).toBe(context)
    const rootOf = (name: string) => fingerprintsOf(context.bundles(parseTrustDomain(name)))
    expect(rootOf('td')).toEqual(fingerprintsOf(authority.bundle))
    expect(rootOf('other')).toEqual(fingerprintsOf(other.bundle))
    expect(rootOf('third')).toBeUndefined()
    expect(api.headers).toEqual([['true']])
  })

  it('follows updates', async () => {
    await using api = await start('update')
    api.say(answer('spiffe://td/a'))
    await api.source.ready(patience())
    const context = await api.change(answer('spiffe://td/b'))
    expect(idOf(context)).toBe('spiffe://td/b')
    expect(api.source.current()).toBe(context)
    expect(api.troubles).toEqual([])
  })

  it('WA-15 withdraws the identity on PermissionDenied, and takes it up again', async () => {
    await using api = await start('denied')
    api.say(answer('spiffe://td/a'))
    await api.source.ready(patience())
    expect(await api.change(new IdentityError('ERR_NO_IDENTITY', 'gone'))).toBeUndefined()
    expect(api.source.current()).toBeUndefined()
    await api.retry()
    expect(idOf(await api.change(answer('spiffe://td/b')))).toBe('spiffe://td/b')
  })

  it('keeps the last good context on Unavailable', async () => {
    await using api = await start('unavailable')
    api.say(answer('spiffe://td/a'))
    const context = await api.source.ready(patience())
    const error = await api.trouble(new IdentityError('ERR_UNAVAILABLE', 'later'))
    expect(error).toMatchObject({ code: 14 })
    await api.clock.asleep()
    expect(api.waits()).toBe(1)
    expect(api.source.current()).toBe(context)
    await api.retry()
    expect(idOf(await api.change(answer('spiffe://td/b')))).toBe('spiffe://td/b')
  })

  it('WE-10 does not try again after InvalidArgument', async () => {
    await using api = await start('invalid')
    api.say(new IdentityError('ERR_BAD_REQUEST', 'never'))
    await expect(api.source.ready(patience())).rejects.toMatchObject({ code: 3 })
    await api.source[Symbol.asyncDispose]()
    expect(api.waits()).toBe(0)
    expect(api.troubles).toHaveLength(1)
  })

  const stranger = authority.issue('spiffe://td/a').key.export({ format: 'der', type: 'pkcs8' })
  it.each([
    [
      'names another',
      svidOf('spiffe://td/b', { spiffeId: 'spiffe://td/a' }),
      'the certificate of spiffe://td/a names spiffe://td/b',
    ],
    [
      'has another key',
      svidOf('spiffe://td/a', { x509SvidKey: stranger }),
      'the key of spiffe://td/a is not that of its certificate',
    ],
    [
      'has no key',
      svidOf('spiffe://td/a', { x509SvidKey: new Uint8Array(3) }),
      'the key of spiffe://td/a is no PKCS#8',
    ],
  ])('refuses a certificate that %s, and keeps the context before', async (name, svid, message) => {
    await using api = await start(name.replaceAll(' ', '-'))
    api.say(answer('spiffe://td/a'))
    const context = await api.source.ready(patience())
    const error = await api.trouble({ svids: [svid] })
    expect(error).toMatchObject({ code: 'ERR_CERTIFICATE' })
    expect(explain(error)).toContain(message)
    expect(api.source.current()).toBe(context)
  })

  it('refuses an answer without SVID', async () => {
    await using api = await start('empty')
    expect(await api.trouble({ svids: [] })).toMatchObject({ code: 'ERR_NO_IDENTITY' })
    expect(api.source.current()).toBeUndefined()
  })

  it('ready gives up with its signal', async () => {
    await using api = await start('signal')
    const reason = new Error('enough')
    await expect(api.source.ready(AbortSignal.abort(reason))).rejects.toBe(reason)
    const stop = new AbortController()
    const ready = api.source.ready(stop.signal)
    stop.abort(reason)
    await expect(ready).rejects.toBe(reason)
  })

  it('ends its stream when it is disposed', async () => {
    await using api = await start('dispose')
    api.say(answer('spiffe://td/a'))
    await api.source.ready(patience())
    expect(api.server.openStreams).toBe(1)
    await api.source[Symbol.asyncDispose]()
    await expect.poll(() => api.server.openStreams, { timeout: 20_000 }).toBe(0)
    await expect.poll(() => api.server.connections, { timeout: 20_000 }).toBe(0)
  })
})
