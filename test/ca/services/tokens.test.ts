// JWT-SVIDs and WIT-SVIDs as the authority issues them, read by jose and against the specification.
import { createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { decodeJwt, decodeProtectedHeader, jwtVerify } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { Bundle } from '../../../proto/gen/spire/api/server/bundle/v1/bundle_pb.js'
import { Entry } from '../../../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import { LocalAuthority } from '../../../proto/gen/spire/api/server/localauthority/v1/localauthority_pb.js'
import { SVID } from '../../../proto/gen/spire/api/server/svid/v1/svid_pb.js'
import { type Connection, denialOf } from '../../support/ca-client.ts'
import { rawCall, rawSession } from '../../support/raw-grpc.ts'
import { sharedCa } from '../../support/shared-ca.ts'

const trustDomain = 'example.org'
const id = (path: string) => ({ trustDomain, path })

const ca = sharedCa()
let agent: Connection
beforeAll(async () => {
  const own = await ca.join()
  agent = ca.remote(own)
  const parentId = id(own.id.slice(`spiffe://${trustDomain}`.length))
  const selectors = [{ type: 'unix', value: 'uid:1000' }]
  const { results } = await ca.local.client(Entry).batchCreateEntry({
    entries: [
      { id: 'web', spiffeId: id('/web'), parentId, selectors, jwtSvidTtl: 120, hint: 'front' },
      {
        id: 'jti',
        spiffeId: id('/jti'),
        parentId,
        selectors,
        additionalAttributes: { jwtSvidIncludeJti: true },
      },
      { id: 'foreign', spiffeId: id('/foreign'), parentId: id('/spire/agent/x'), selectors },
    ],
  })
  expect(results.map(({ status }) => status?.code)).toEqual([0, 0, 0])
})
afterAll(() => agent[Symbol.dispose]())

const keysOf = async (kind: 'jwt' | 'wit') => {
  const bundle = await ca.local.client(Bundle).getBundle({})
  const keys = kind === 'jwt' ? bundle.jwtAuthorities : bundle.witAuthorities
  const read = (der: Uint8Array) =>
    createPublicKey({ key: Buffer.from(der), format: 'der', type: 'spki' })
  return new Map(keys.map(({ keyId, publicKey }) => [keyId, read(publicKey)]))
}

/** Verified by the key that its `kid` names in the published bundle. */
async function verified(token: string, kind: 'jwt' | 'wit', audience?: string) {
  const { kid = '' } = decodeProtectedHeader(token)
  const key = (await keysOf(kind)).get(kid)
  if (key === undefined) throw new Error(`kid ${kid} is not published`)
  return await jwtVerify(token, key, audience === undefined ? {} : { audience })
}

const newJwt = async (entryId: string, ...audience: string[]) =>
  (await agent.client(SVID).newJWTSVID({ entryId, audience })).svid

// JWT-SVID.schema, and section 3.2 for several audiences
const Header = z.strictObject({
  alg: z.string().regex(/^(?:RS|ES|PS)(?:256|384|512)$/),
  kid: z.string(),
  typ: z.enum(['JWT', 'JOSE']),
})
const Payload = z.looseObject({
  sub: z.string(),
  aud: z.union([z.string(), z.array(z.string()).min(1)]),
  exp: z.int(),
})

describe('a JWT-SVID', () => {
  it('JW-1 JW-2 JW-3 is a compact JWS whose header is alg, kid, typ and nothing else', async () => {
    const svid = await newJwt('web', 'them')
    expect(svid?.token).toMatch(/^[\w-]+\.[\w-]+\.[\w-]+$/)
    const kid = [...(await keysOf('jwt')).keys()].at(-1)
    expect(decodeProtectedHeader(svid?.token ?? '')).toEqual({ alg: 'ES256', kid, typ: 'JWT' })
  })

  it('JW-6 JW-7 JW-10 R14 says who, for whom, and until when; the entry decides', async () => {
    const svid = await newJwt('web', 'them', 'others')
    const [, body = ''] = (svid?.token ?? '').split('.')
    // written as whole numbers, not as 1.7e9
    expect(Buffer.from(body, 'base64url').toString()).toMatch(/"exp":\d{10}[,}]/)
    const { payload } = await verified(svid?.token ?? '', 'jwt', 'others')
    expect(payload).toEqual({
      sub: 'spiffe://example.org/web',
      aud: ['them', 'others'],
      iat: Number(svid?.issuedAt),
      exp: Number(svid?.issuedAt) + 120,
    })
    expect(svid).toMatchObject({
      id: id('/web'),
      hint: 'front',
      expiresAt: BigInt(payload.exp ?? 0),
    })
  })

  it('lives five minutes unless its entry says otherwise, and carries a jti when it says so', async () => {
    const [one, two] = [await newJwt('jti', 'a'), await newJwt('jti', 'a')].map((svid) =>
      decodeJwt(svid?.token ?? ''),
    )
    expect((one?.exp ?? 0) - (one?.iat ?? 0)).toBe(300)
    expect(one?.jti).toMatch(/^[0-9a-f]{32}$/)
    expect(two?.jti).not.toBe(one?.jti)
  })

  it('JW-19 has the shape of the standard’s schema, whichever way it is issued', async () => {
    const minted = await ca.local
      .client(SVID)
      .mintJWTSVID({ id: id('/anyone'), audience: ['them'], ttl: 60 })
    const issued = [await newJwt('web', 'a'), await newJwt('jti', 'a', 'b'), minted.svid]
    for (const svid of issued) {
      const token = svid?.token ?? ''
      for (const read of [
        Header.safeParse(decodeProtectedHeader(token)),
        Payload.safeParse(decodeJwt(token)),
      ])
        expect(read.error?.issues).toBeUndefined()
    }
  })

  it('JW-14 its key is published with its kid, beside those of X.509', async () => {
    const bundle = await ca.local.client(Bundle).getBundle({})
    expect(bundle.jwtAuthorities).toHaveLength(1)
    expect(bundle.jwtAuthorities[0]).toMatchObject({
      keyId: expect.stringMatching(/^[0-9a-f]{32}$/),
      tainted: false,
    })
    expect(Number(bundle.jwtAuthorities[0]?.expiresAt)).toBeGreaterThan(Date.now() / 1000)
    const masked = await ca.local.client(Bundle).getBundle({ outputMask: { jwtAuthorities: true } })
    expect([masked.x509Authorities.length, masked.jwtAuthorities.length]).toEqual([0, 1])
  })

  it.each([
    ['no audience', [], 'audience: is empty: name at least one receiver'],
    ['an empty audience', ['a', ''], 'audience[1]: is not 1 to 1024 characters'],
    ['too many', Array.from({ length: 33 }, String), 'audience: more than 32 receivers'],
  ])('is refused with %s', async (_what, audience, message) => {
    expect(await denialOf(newJwt('web', ...audience))).toEqual({ code: 'InvalidArgument', message })
  })

  it('is refused for an entry of another agent, and for one that is not there', async () => {
    expect(await denialOf(newJwt('foreign', 'a'))).toMatchObject({ code: 'PermissionDenied' })
    expect(await denialOf(newJwt('nothing', 'a'))).toMatchObject({ code: 'NotFound' })
  })

  it('is minted for an administrator: any ID of ours but the reserved ones', async () => {
    const mint = (path: string, domain = trustDomain) =>
      ca.local.client(SVID).mintJWTSVID({
        id: { trustDomain: domain, path },
        audience: ['them'],
        ttl: 60,
      })
    const { svid } = await mint('/anyone')
    const { payload } = await verified(svid?.token ?? '', 'jwt', 'them')
    expect(payload).toMatchObject({ sub: 'spiffe://example.org/anyone' })
    expect((payload.exp ?? 0) - (payload.iat ?? 0)).toBe(60)
    expect(await denialOf(mint('/spire/server'))).toMatchObject({ code: 'InvalidArgument' })
    expect(await denialOf(mint('/x', 'other.test'))).toMatchObject({ code: 'InvalidArgument' })
    const negative = ca.local.client(SVID).mintJWTSVID({ id: id('/x'), audience: ['a'], ttl: -1 })
    expect(await denialOf(negative)).toEqual({
      code: 'InvalidArgument',
      message: 'ttl: is negative',
    })
  })

  it('JW-17 travels in TLS only: the authority hears nobody else', async () => {
    const session = await rawSession(`127.0.0.1:${ca.running.port}`)
    const path = { ':path': '/spire.api.server.svid.v1.SVID/NewJWTSVID' }
    // the connection is closed, before or after the request was written
    const answer = await rawCall(session, Buffer.alloc(5), path).catch(() => undefined)
    expect(answer?.headers ?? {}).toEqual({})
    session.destroy()
  })

  it('is recorded before it is delivered, and never logged', async () => {
    const svid = await newJwt('jti', 'a')
    const { jti = '' } = decodeJwt(svid?.token ?? '')
    expect(ca.lines.filter((line) => line.includes(String(jti)))).toHaveLength(1)
    expect(ca.lines.join('')).not.toContain(svid?.token ?? 'nothing')
  })
})

const spki = (key: KeyObject) => new Uint8Array(key.export({ format: 'der', type: 'spki' }))

describe('a WIT-SVID', () => {
  const holder = generateKeyPairSync('ec', { namedCurve: 'prime256v1' }).publicKey
  const batch = async (
    ...params: { entryId: string; publicKey: Uint8Array; signingAlgorithm: string }[]
  ) => (await agent.client(SVID).batchNewWITSVID({ params })).results
  const good = { entryId: 'web', publicKey: spki(holder), signingAlgorithm: 'ES256' }

  it('WT-1 WT-2 WT-3 WT-5 WT-6 WT-7 WT-9 WT-13 WT-15 says what it has to, and no audience', async () => {
    const [result] = await batch(good)
    expect(result?.status).toMatchObject({ code: 0, message: 'OK' })
    const token = result?.svid?.token ?? ''
    const { payload, protectedHeader } = await verified(token, 'wit')
    const kid = [...(await keysOf('wit')).keys()].at(-1)
    expect(protectedHeader).toEqual({ alg: 'ES256', kid, typ: 'wit+jwt' })
    expect(payload).toEqual({
      sub: 'spiffe://example.org/web',
      iat: Number(result?.svid?.issuedAt),
      exp: Number(result?.svid?.expiresAt),
      jti: expect.stringMatching(/^[0-9a-f]{32}$/),
      cnf: { jwk: { ...holder.export({ format: 'jwk' }), alg: 'ES256' } },
    })
    expect((payload.exp ?? 0) - (payload.iat ?? 0)).toBe(3600)
  })

  it('WT-8 WT-12 has an id that no other one has, and no issuer to be discovered', async () => {
    const results = await batch(good, good, good)
    const tokens = results.map(({ svid }) => svid?.token ?? '')
    const payloads = await Promise.all(
      tokens.map(async (it) => (await verified(it, 'wit')).payload),
    )
    expect(new Set(payloads.map(({ jti }) => jti)).size).toBe(3)
    expect(payloads.map(({ iss }) => iss)).toEqual([undefined, undefined, undefined])
  })

  it('WT-19 its kid is of no JWT key, and the two kinds of key are kept apart', async () => {
    const [jwt, wit] = [await keysOf('jwt'), await keysOf('wit')]
    expect([...jwt.keys()].some((kid) => wit.has(kid))).toBe(false)
    const [result] = await batch(good)
    const [jwtKey] = jwt.values()
    if (jwtKey === undefined) throw new Error('no JWT key')
    await expect(jwtVerify(result?.svid?.token ?? '', jwtKey)).rejects.toThrow('signature')
  })

  it.each([
    ['ES384', () => generateKeyPairSync('ec', { namedCurve: 'secp384r1' }).publicKey],
    ['PS256', () => generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey],
  ])('WT-7 takes a key for %s', async (signingAlgorithm, key) => {
    const [result] = await batch({ ...good, publicKey: spki(key()), signingAlgorithm })
    expect(decodeJwt(result?.svid?.token ?? '')).toMatchObject({
      cnf: { jwk: { alg: signingAlgorithm } },
    })
  })

  it('each item has its own status: an algorithm, a key or an entry that does not do harms no other', async () => {
    const ed25519 = spki(generateKeyPairSync('ed25519').publicKey)
    const short = spki(generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey)
    const results = await batch(
      { ...good, signingAlgorithm: 'EdDSA', publicKey: ed25519 },
      { ...good, signingAlgorithm: 'ES384' },
      { ...good, signingAlgorithm: 'RS256', publicKey: short },
      { ...good, publicKey: new Uint8Array([1]) },
      { ...good, entryId: 'foreign' },
      good,
    )
    expect(results.map(({ status }) => status?.message)).toEqual([
      expect.stringContaining('params[0].signing_algorithm: is none of ES256'),
      'params[1].public_key: is no key for ES384',
      'params[2].public_key: is no key for RS256',
      'params[3].public_key: is no SubjectPublicKeyInfo in DER',
      expect.stringContaining('entry foreign is not below agent'),
      'OK',
    ])
  })

  it('is minted for an administrator', async () => {
    const { entryId, ...key } = good
    const { svid } = await ca.local.client(SVID).mintWITSVID({ id: id('/anyone'), ttl: 90, ...key })
    const { payload } = await verified(svid?.token ?? '', 'wit')
    expect(payload.sub).toBe(`spiffe://${trustDomain}/anyone`)
    expect((payload.exp ?? 0) - (payload.iat ?? 0)).toBe(90)
  })
})

describe('keys for tokens', () => {
  it('rotate by hand; three of a kind are published at most', async () => {
    const operator = ca.local.client(LocalAuthority)
    const activate = async () => {
      const { preparedAuthority } = await operator.prepareJWTAuthority({})
      const authorityId = preparedAuthority?.authorityId ?? ''
      await operator.activateJWTAuthority({ authorityId })
      return authorityId
    }
    const { active } = await operator.getJWTAuthorityState({})
    const before = await newJwt('web', 'a')
    const second = await activate()
    const after = await newJwt('web', 'a')
    expect(decodeProtectedHeader(after?.token ?? '').kid).toBe(second)
    await verified(before?.token ?? '', 'jwt', 'a')
    await activate()
    expect((await keysOf('jwt')).size).toBe(3)
    expect(await denialOf(operator.prepareJWTAuthority({}))).toMatchObject({
      code: 'FailedPrecondition',
      message: expect.stringContaining('revoke an old one first'),
    })
    const authorityId = active?.authorityId ?? ''
    expect(await denialOf(operator.revokeJWTAuthority({ authorityId }))).toMatchObject({
      message: expect.stringContaining('taint it first'),
    })
    await operator.taintJWTAuthority({ authorityId })
    await operator.revokeJWTAuthority({ authorityId })
    await expect(verified(before?.token ?? '', 'jwt')).rejects.toThrow('is not published')
    expect((await keysOf('jwt')).size).toBe(2)
  })
})
