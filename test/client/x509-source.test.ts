import type { MessageInitShape } from '@bufbuild/protobuf'
import { describe, expect, it } from 'vitest'
import { signCrl } from '../../ca/crl.ts'
import { makeDevCa } from '../../certs-dev/authority.ts'
import {
  pickByHint,
  pickById,
  startX509Source,
  type X509Context,
  type X509Source,
} from '../../client/x509-source.ts'
import type { X509SVIDResponseSchema } from '../../proto/gen/spiffe/workload/workloadapi_pb.js'
import { bundleToDer, type X509Bundle } from '../../spiffe/bundle.ts'
import { fingerprintOf, serialOf } from '../../spiffe/certificate.ts'
import { explain, IdentityError } from '../../spiffe/errors.ts'
import { parseSpiffeId, parseTrustDomain } from '../../spiffe/id.ts'
import { makeTestAuthority } from '../support/mesh.ts'
import { watch } from './workload-api.ts'

type Answer = MessageInitShape<typeof X509SVIDResponseSchema>

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

const dev = makeDevCa({ name: 'of lists', notBefore: Date.now(), notAfter: Date.now() + 60_000 })

/** A revocation list with one serial. */
function listOf(serial: string): Buffer {
  const times = { thisUpdate: Date.now(), nextUpdate: Date.now() + 60_000 }
  const revoked = [{ serial: serialOf(Buffer.from(serial, 'hex')), at: Date.now() }]
  const fields = { issuer: dev.subject, authorityKeyId: Buffer.alloc(20), number: 1, ...times }
  return signCrl({ ...fields, revoked }, dev.privateKey)
}

const start = () =>
  watch<Answer, X509Context, X509Source>({
    handlers: (fetchX509SVID) => ({ fetchX509SVID }),
    start: startX509Source,
  })

const fingerprintsOf = (bundle: X509Bundle | undefined) =>
  bundle?.authorities.map(({ der }) => fingerprintOf(der))

const idOf = (context: X509Context | undefined) => context?.svids[0].id

describe('an X509 source', () => {
  it('has the first context whole, and asks with the security header', async () => {
    await using api = await start()
    expect(api.source.current()).toBeUndefined()
    expect(api.source.svid()).toBeUndefined()
    expect(api.source.bundles()).toEqual([])
    const crl = [listOf('01'), listOf('02')]
    api.say({
      svids: [svidOf('spiffe://td/a'), svidOf('spiffe://td/b')],
      federatedBundles: { 'spiffe://other': bundleToDer(other.bundle) },
      crl,
    })
    const context = await api.source.ready(patience())
    expect(context.svids.map(({ id }) => id)).toEqual(['spiffe://td/a', 'spiffe://td/b'])
    expect(api.source.current()).toBe(context)
    const rootOf = (name: string) => fingerprintsOf(context.bundles(parseTrustDomain(name)))
    expect(rootOf('td')).toEqual(fingerprintsOf(authority.bundle))
    expect(rootOf('other')).toEqual(fingerprintsOf(other.bundle))
    expect(rootOf('third')).toBeUndefined()
    expect(api.source.bundles().map(({ trustDomain }) => trustDomain)).toEqual(['td', 'other'])
    expect(api.source.crls().map((it) => Buffer.from(it))).toEqual(crl)
    expect(api.headers).toEqual([['true']])
  })

  it('WA-27 takes the first SVID when nothing is picked, or the one with an ID or a hint', async () => {
    await using api = await start()
    api.say({ svids: [svidOf('spiffe://td/a'), svidOf('spiffe://td/b', { hint: 'admin' })] })
    await api.source.ready(patience())
    expect(api.source.svid()?.id).toBe('spiffe://td/a')
    expect(api.source.svid(pickByHint('admin'))?.id).toBe('spiffe://td/b')
    expect(api.source.svid(pickById(parseSpiffeId('spiffe://td/b')))?.hint).toBe('admin')
    expect(api.source.svid(pickByHint('none'))).toBeUndefined()
    expect(api.source.svid(pickById(parseSpiffeId('spiffe://td/c')))).toBeUndefined()
  })

  it('WA-13 takes the first of several SVIDs with one hint', async () => {
    await using api = await start()
    const hinted = ['a', 'b'].map((it) => svidOf(`spiffe://td/${it}`, { hint: 'same' }))
    api.say({ svids: [...hinted, svidOf('spiffe://td/c'), svidOf('spiffe://td/d')] })
    const { svids } = await api.source.ready(patience())
    expect(svids.map(({ id }) => id)).toEqual(['spiffe://td/a', 'spiffe://td/c', 'spiffe://td/d'])
  })

  it('WA-8 keeps nothing of earlier messages', async () => {
    await using api = await start()
    api.say({
      svids: [svidOf('spiffe://td/a'), svidOf('spiffe://td/b')],
      federatedBundles: { 'spiffe://other': bundleToDer(other.bundle) },
      crl: [listOf('01')],
    })
    await api.source.ready(patience())
    const context = await api.change(answer('spiffe://td/a'))
    expect(context?.svids).toHaveLength(1)
    expect(context?.bundles(parseTrustDomain('other'))).toBeUndefined()
    expect(api.source.bundles()).toHaveLength(1)
    expect(api.source.crls()).toEqual([])
    expect(api.source.svid(pickById(parseSpiffeId('spiffe://td/b')))).toBeUndefined()
  })

  it('WA-16 takes no federated bundle for that of its own trust domain', async () => {
    await using api = await start()
    const federatedBundles = { 'spiffe://td': bundleToDer(other.bundle) }
    api.say({ svids: [svidOf('spiffe://td/a')], federatedBundles })
    const { bundles } = await api.source.ready(patience())
    expect(fingerprintsOf(bundles(parseTrustDomain('td')))).toEqual(
      fingerprintsOf(authority.bundle),
    )
  })

  it('WA-4 asks again when the stream has ended, and keeps what it has meanwhile', async () => {
    await using api = await start()
    api.say(answer('spiffe://td/a'))
    const context = await api.source.ready(patience())
    api.end()
    await api.clock.asleep()
    expect(api.source.current()).toBe(context)
    // no backoff to speak of: the stream was good
    await api.clock.advance(50)
    expect(idOf(await api.change(answer('spiffe://td/b')))).toBe('spiffe://td/b')
    expect(api.troubles).toEqual([])
  })

  it('follows updates', async () => {
    await using api = await start()
    api.say(answer('spiffe://td/a'))
    await api.source.ready(patience())
    const context = await api.change(answer('spiffe://td/b'))
    expect(idOf(context)).toBe('spiffe://td/b')
    expect(api.source.current()).toBe(context)
    expect(api.troubles).toEqual([])
  })

  it('WA-15 withdraws the identity on PermissionDenied, and takes it up again', async () => {
    await using api = await start()
    api.say(answer('spiffe://td/a'))
    await api.source.ready(patience())
    expect(await api.change(new IdentityError('ERR_NO_IDENTITY', 'gone'))).toBeUndefined()
    expect(api.source.current()).toBeUndefined()
    await api.retry()
    expect(idOf(await api.change(answer('spiffe://td/b')))).toBe('spiffe://td/b')
  })

  it('keeps the last good context on Unavailable', async () => {
    await using api = await start()
    api.say(answer('spiffe://td/a'))
    const context = await api.source.ready(patience())
    const error = await api.trouble(new IdentityError('ERR_UNAVAILABLE', 'later'))
    expect(error).toMatchObject({ code: 14 })
    expect(api.source.trouble()).toBe(error)
    await api.clock.asleep()
    expect(api.waits()).toBe(1)
    expect(api.source.current()).toBe(context)
    await api.retry()
    expect(idOf(await api.change(answer('spiffe://td/b')))).toBe('spiffe://td/b')
    expect(api.source.trouble()).toBeUndefined()
  })

  it.each([
    ['InvalidArgument', 'ERR_BAD_REQUEST', 3],
    ['Unimplemented', 'ERR_UNIMPLEMENTED', 12],
  ] as const)('WE-10 does not try again after %s', async (_, code, number) => {
    await using api = await start()
    api.say(new IdentityError(code, 'never'))
    await expect(api.source.ready(patience())).rejects.toMatchObject({ code: number })
    await api.source[Symbol.asyncDispose]()
    expect(api.waits()).toBe(0)
    expect(api.troubles).toHaveLength(1)
  })

  it.each([
    ['Unavailable', 'ERR_UNAVAILABLE'],
    ['PermissionDenied', 'ERR_NO_IDENTITY'],
  ] as const)('WE-10 tries again after %s, with backoff', async (_, code) => {
    await using api = await start()
    for (let attempt = 1; attempt <= 3; attempt++) {
      await api.trouble(new IdentityError(code, 'later'))
      await api.clock.asleep()
      expect(api.waits()).toBe(attempt)
      await api.retry()
    }
    api.say(answer('spiffe://td/a'))
    expect(idOf(await api.source.ready(patience()))).toBe('spiffe://td/a')
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
  ])(
    'WA-9 refuses a certificate that %s, and keeps the context before',
    async (_, svid, message) => {
      await using api = await start()
      api.say(answer('spiffe://td/a'))
      const context = await api.source.ready(patience())
      const error = await api.trouble({ svids: [svid] })
      expect(error).toMatchObject({ code: 'ERR_CERTIFICATE' })
      expect(explain(error)).toContain(message)
      expect(api.source.current()).toBe(context)
      await api.retry()
      expect(idOf(await api.change(answer('spiffe://td/b')))).toBe('spiffe://td/b')
    },
  )

  it('WA-9 refuses a revocation list that cannot be read, and keeps the context before', async () => {
    await using api = await start()
    api.say(answer('spiffe://td/a'))
    const context = await api.source.ready(patience())
    const trouble = await api.trouble({ ...answer('spiffe://td/b'), crl: [Buffer.from('a list')] })
    expect(explain(trouble)).toContain('malformed revocation list: ')
    expect(api.source.current()).toBe(context)
  })

  it('WA-9 refuses an answer without SVID', async () => {
    await using api = await start()
    expect(await api.trouble({ svids: [] })).toMatchObject({ code: 'ERR_NO_IDENTITY' })
    expect(api.source.current()).toBeUndefined()
  })

  it('ready gives up with its signal', async () => {
    await using api = await start()
    const reason = new Error('enough')
    await expect(api.source.ready(AbortSignal.abort(reason))).rejects.toBe(reason)
    const stop = new AbortController()
    const ready = api.source.ready(stop.signal)
    stop.abort(reason)
    await expect(ready).rejects.toBe(reason)
  })

  it('ends its stream when it is disposed', async () => {
    await using api = await start()
    api.say(answer('spiffe://td/a'))
    await api.source.ready(patience())
    expect(api.server.openStreams).toBe(1)
    await api.source[Symbol.asyncDispose]()
    await expect.poll(() => api.server.openStreams, { timeout: 20_000 }).toBe(0)
    await expect.poll(() => api.server.connections, { timeout: 20_000 }).toBe(0)
  })
})
