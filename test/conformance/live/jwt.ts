// The JWT profile as it is served: tokens, the keys that verify them, and what is refused.
import { strict as assert } from 'node:assert'
import { Code } from '@connectrpc/connect'
import { decodeJwt, decodeProtectedHeader } from 'jose'
import { z } from 'zod'
import { isSpiffeId, parseSpiffeId, trustDomainOf } from '../../../spiffe/id.ts'
import { assertRefused, check, patience, skip } from './check.ts'
import { keysOf, verifiedBy } from './jwks.ts'
import { type Scene, servedAudience } from './scene.ts'

const nine = ['ES256', 'ES384', 'ES512', 'PS256', 'PS384', 'PS512', 'RS256', 'RS384', 'RS512']
const curves: Readonly<Record<string, string>> = { ES256: 'P-256', ES384: 'P-384', ES512: 'P-521' }
const tokens = ({ served }: Scene) => served.jwt.svids.map(({ svid }) => svid)
const ownKeys = ({ served, trustDomain }: Scene) => keysOf(served.jwtBundles.bundles, trustDomain)
const headerOf = (token: string): Readonly<Record<string, unknown>> => decodeProtectedHeader(token)

// JWT-SVID.schema, in our own words
const Header = z.strictObject({
  alg: z.enum(nine),
  kid: z.string().optional(),
  typ: z.enum(['JWT', 'JOSE']).optional(),
})
const Claims = z.looseObject({
  sub: z.string().regex(/^spiffe:\/\/[a-z0-9._-]+(?:\/[\w.-]+)+$/),
  aud: z.union([z.string(), z.array(z.string()).min(1)]),
  exp: z.number(),
})

async function validated({ client }: Scene, svid: string, audience = servedAudience) {
  return await client.validateJWTSVID({ audience, svid }, { signal: patience() })
}

const fetching = [
  check('WA-1', 'the X.509 and JWT profiles answer', async (scene) => {
    assert.ok(scene.served.x509.svids.length > 0 && scene.served.jwt.svids.length > 0)
    await validated(scene, tokens(scene)[0] ?? '')
  }),
  check('WA-18 WA-9', 'no audience is InvalidArgument, several are taken', async ({ client }) => {
    await assertRefused(client.fetchJWTSVID({}), Code.InvalidArgument)
    const { svids } = await client.fetchJWTSVID({ audience: ['a', 'b'] })
    assert.deepEqual(decodeJwt(svids[0]?.svid ?? '').aud, ['a', 'b'])
  }),
  check('WA-9', 'validation wants a token and an audience', async ({ client, served }) => {
    const svid = served.jwt.svids[0]?.svid ?? ''
    await assertRefused(client.validateJWTSVID({ svid }), Code.InvalidArgument)
    await assertRefused(client.validateJWTSVID({ audience: 'a' }), Code.InvalidArgument)
  }),
  check('WA-19', 'all identities, or the one that is named', async ({ client, served }) => {
    const audience = [servedAudience]
    const ids = served.x509.svids.map(({ spiffeId }) => spiffeId)
    assert.deepEqual(served.jwt.svids.map(({ spiffeId }) => spiffeId).sort(), ids.toSorted())
    for (const spiffeId of ids) {
      const { svids } = await client.fetchJWTSVID({ audience, spiffeId })
      assert.deepEqual(new Set(svids.map((it) => it.spiffeId)), new Set([spiffeId]))
    }
    const other = `${ids[0]}/conformance-nobody`
    await assertRefused(client.fetchJWTSVID({ audience, spiffeId: other }), Code.PermissionDenied)
  }),
  check('WA-20', 'one token at least, each of the identity it comes with', ({ served }) => {
    assert.ok(served.jwt.svids.length > 0, 'none')
    for (const { spiffeId, svid } of served.jwt.svids) assert.equal(decodeJwt(svid).sub, spiffeId)
  }),
  check('R11', 'a token for other receivers is another token', async ({ client, served }) => {
    const spiffeId = served.jwt.svids[0]?.spiffeId ?? ''
    const audienceOf = async (audience: string[]) => {
      const { svids } = await client.fetchJWTSVID({ audience, spiffeId })
      const { sub, aud } = decodeJwt(svids[0]?.svid ?? '')
      assert.equal(sub, spiffeId)
      return [aud].flat().toSorted()
    }
    for (const audience of [['a', 'b'], ['a'], ['b'], ['a,b'], ['a', 'b']])
      assert.deepEqual(await audienceOf(audience), audience)
  }),
]

const issued = [
  check('JW-1', 'a compact JWS', (scene) => {
    for (const token of tokens(scene)) assert.match(token, /^[\w-]+\.[\w-]+\.[\w-]+$/)
  }),
  check('JW-2', 'the header has alg, kid and typ, and nothing else', (scene) => {
    for (const token of tokens(scene)) {
      const others = Object.keys(headerOf(token)).filter((it) => !/^(?:alg|kid|typ)$/.test(it))
      assert.deepEqual(others, [])
    }
  }),
  check('JW-3', 'alg is one of the nine', (scene) => {
    for (const token of tokens(scene)) assert.ok(nine.includes(String(headerOf(token).alg)))
  }),
  check('JW-5', 'typ is absent, JWT or JOSE', (scene) => {
    for (const token of tokens(scene))
      assert.ok([undefined, 'JWT', 'JOSE'].some((it) => it === headerOf(token).typ))
  }),
  check('JW-6', 'sub is a SPIFFE ID of the trust domain whose key verifies it', async (scene) => {
    for (const token of tokens(scene)) {
      const { sub = '' } = await verifiedBy(token, ownKeys(scene))
      assert.ok(isSpiffeId(sub), `${sub} is none`)
      assert.equal(trustDomainOf(parseSpiffeId(sub)), scene.trustDomain)
    }
  }),
  check('JW-7', 'aud is what was asked for', (scene) => {
    for (const token of tokens(scene))
      assert.deepEqual([decodeJwt(token).aud].flat(), [servedAudience])
  }),
  check('JW-10 JW-12 R14', 'exp and iat are whole seconds around now', (scene) => {
    for (const token of tokens(scene)) {
      const payload = Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()
      assert.match(payload, /"exp":\d{10}[,}]/)
      const { exp = 0, iat = 0 } = decodeJwt(token)
      assert.ok(exp * 1000 > Date.now(), 'it has expired')
      assert.ok(iat * 1000 <= Date.now() + 60_000, 'iat is to come')
    }
  }),
  check('JW-18', 'the algorithm is one of its key', (scene) => {
    for (const token of tokens(scene)) {
      const { alg, kid } = headerOf(token)
      const key = ownKeys(scene).find((it) => it.kid === kid)
      assert.equal(key?.crv, curves[String(alg)], `${alg} by ${key?.kty} ${key?.crv}`)
    }
  }),
  check('JW-19', 'header and claims have the shape of the standard’s schema', (scene) => {
    for (const token of tokens(scene)) {
      for (const { error } of [
        Header.safeParse(headerOf(token)),
        Claims.safeParse(decodeJwt(token)),
      ])
        assert.equal(error && z.prettifyError(error), undefined)
    }
  }),
]

/** Every JWK Set with its name. */
const sets = ({ served }: Scene) =>
  Object.keys(served.jwtBundles.bundles).map(
    (id) => [id, keysOf(served.jwtBundles.bundles, id.slice('spiffe://'.length))] as const,
  )

const bundles = [
  check('TB-1 TB-4 TB-10 R13', 'each bundle is a JWK Set with a list of keys', (scene) => {
    assert.ok(sets(scene).length > 0, 'none')
  }),
  check('TB-4 R13', 'a bundle without keys has an empty list', (scene) => {
    const empty = sets(scene).filter(([, keys]) => keys.length === 0)
    if (empty.length === 0) skip('the agent serves no bundle without keys')
  }),
  check('TB-8', 'each key has kty and use', (scene) => {
    for (const [id, keys] of sets(scene))
      for (const { use } of keys) assert.ok(use !== undefined, `${id}: a key without use`)
  }),
  check('JW-14', 'each key has use jwt-svid and a kid of its own', (scene) => {
    for (const [id, keys] of sets(scene)) {
      for (const { use } of keys)
        assert.ok(use === 'jwt-svid', `${id}: a key of use ${use ?? 'none'}`)
      const kids = keys.map(({ kid = '' }) => kid)
      assert.ok(!kids.includes('') && new Set(kids).size === kids.length, `${id}: ${kids}`)
    }
  }),
  check('WA-21 WA-16', 'the own trust domain is there, and no key of another use', (scene) => {
    assert.ok(ownKeys(scene).length > 0, 'no own key')
    const ours = scene.foreign.kind === 'there' ? scene.foreign.it : undefined
    for (const [id, keys] of sets(scene))
      for (const { use, kid } of keys) {
        assert.ok(use === undefined || use === 'jwt-svid', `${id}: key ${kid} has use ${use}`)
        assert.notEqual(kid, ours?.witSigner.key.keyId, `${id}: a key for WIT-SVIDs`)
      }
  }),
]

const own = [
  check(
    'WA-22 JW-8',
    'its own token is valid for its audience, and only as it is',
    async (scene) => {
      for (const { svid, spiffeId } of scene.served.jwt.svids) {
        const answer = await validated(scene, svid)
        assert.equal(answer.spiffeId, spiffeId)
        for (const name of ['sub', 'aud', 'exp'])
          assert.ok(answer.claims && name in answer.claims, `no claim ${name}`)
        await assertRefused(validated(scene, svid, 'other'), Code.InvalidArgument)
        const upper = servedAudience.toUpperCase()
        await assertRefused(validated(scene, svid, upper), Code.InvalidArgument)
        const [header, , signature] = svid.split('.')
        const forged = { ...decodeJwt(svid), sub: `${spiffeId}/more` }
        const payload = Buffer.from(JSON.stringify(forged)).toString('base64url')
        const token = [header, payload, signature].join('.')
        await assertRefused(validated(scene, token), Code.InvalidArgument)
      }
    },
  ),
]

export const jwtChecks = [...fetching, ...issued, ...bundles, ...own]
