// The WIT profile as it is served, where it is: tokens bound to a key of their holder.
import { strict as assert } from 'node:assert'
import { createPrivateKey, createPublicKey, type JsonWebKey } from 'node:crypto'
import { Code } from '@connectrpc/connect'
import { decodeJwt, decodeProtectedHeader } from 'jose'
import { z } from 'zod'
import type { WITSVID } from '../../../proto/gen/spiffe/workload/workloadapi_pb.js'
import { isSpiffeId } from '../../../spiffe/id.ts'
import { assertRefused, check, first, need, patience, refusal } from './check.ts'
import { keysOf, verifiedBy } from './jwks.ts'
import type { Scene } from './scene.ts'

const nine = ['ES256', 'ES384', 'ES512', 'PS256', 'PS384', 'PS512', 'RS256', 'RS384', 'RS512']
const privateMembers = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k']

const Claims = z.looseObject({
  sub: z.string(),
  exp: z.number(),
  cnf: z.object({ jwk: z.record(z.string(), z.string()) }),
})
const Key = z.record(z.string(), z.string())

const wits = ({ served }: Scene): readonly WITSVID[] => need(served.wit).svids.svids
const headerOf = ({ witSvid }: WITSVID): Readonly<Record<string, unknown>> =>
  decodeProtectedHeader(witSvid)
const claimsOf = ({ witSvid }: WITSVID) => Claims.parse(decodeJwt(witSvid))
const ownKeys = ({ served, trustDomain }: Scene) =>
  keysOf(need(served.wit).bundles.bundles, trustDomain)

async function nextToken({ client, served }: Scene): Promise<WITSVID> {
  need(served.wit)
  const { svids } = await first(client.fetchWITSVID({}, { signal: patience() }))
  return svids[0] ?? assert.fail('no token')
}

const answers = [
  check('WA-2', 'each RPC of the profile works, or each is Unimplemented', async (scene) => {
    if (scene.served.wit.kind === 'there') return
    const { client } = scene
    await assertRefused(first(client.fetchWITSVID({})), Code.Unimplemented)
    await assertRefused(first(client.fetchWITBundles({})), Code.Unimplemented)
  }),
  check('WA-25', 'all identities or the one that is named, with every field', async (scene) => {
    const ids = scene.served.x509.svids.map(({ spiffeId }) => spiffeId)
    assert.deepEqual(
      wits(scene)
        .map(({ spiffeId }) => spiffeId)
        .toSorted(),
      ids.toSorted(),
    )
    for (const { witSvid, witSvidKey } of wits(scene)) assert.ok(witSvid && witSvidKey)
    const ask = (spiffeId: string) =>
      first(scene.client.fetchWITSVID({ spiffeId }, { signal: patience() }))
    const { svids } = await ask(ids[0] ?? '')
    assert.deepEqual(
      svids.map(({ spiffeId }) => spiffeId),
      ids.slice(0, 1),
    )
    await assertRefused(ask(`${ids[0]}/conformance-nobody`), Code.PermissionDenied)
  }),
  check(
    'WA-26 WA-16 TB-8',
    'the own trust domain, by keys with a kid and use wit-svid',
    (scene) => {
      assert.ok(ownKeys(scene).length > 0, 'no key')
      for (const id of Object.keys(need(scene.served.wit).bundles.bundles)) {
        const keys = keysOf(need(scene.served.wit).bundles.bundles, id.slice('spiffe://'.length))
        for (const { kid, use } of keys)
          assert.ok(kid && use === 'wit-svid', `${id}: ${kid} ${use}`)
      }
    },
  ),
  check('WT-19', 'no kid is of another key of the bundle', (scene) => {
    const jwt = keysOf(scene.served.jwtBundles.bundles, scene.trustDomain)
    const kids = [...ownKeys(scene), ...jwt].map(({ kid }) => kid)
    assert.equal(new Set(kids).size, kids.length)
  }),
]

const tokens = [
  check('WT-1 WT-20', 'kid names the key that verifies it, of use wit-svid', async (scene) => {
    for (const { witSvid } of wits(scene)) await verifiedBy(witSvid, ownKeys(scene))
  }),
  check('WT-2', 'typ is wit+jwt', (scene) => {
    for (const wit of wits(scene)) assert.equal(headerOf(wit).typ, 'wit+jwt')
  }),
  check('WT-3', 'alg is one of the nine', (scene) => {
    for (const wit of wits(scene)) assert.ok(nine.includes(String(headerOf(wit).alg)))
  }),
  check('WT-4 WT-15', 'the header is alg, kid and typ', (scene) => {
    for (const wit of wits(scene))
      assert.deepEqual(Object.keys(headerOf(wit)).sort(), ['alg', 'kid', 'typ'])
  }),
  check('WT-5 WT-15', 'sub is the SPIFFE ID that it comes with', (scene) => {
    for (const wit of wits(scene)) {
      assert.ok(isSpiffeId(wit.spiffeId))
      assert.equal(claimsOf(wit).sub, wit.spiffeId)
    }
  }),
  check('WT-6 WT-7 WT-15', 'cnf.jwk is the public half of the key beside it, with alg', (scene) => {
    for (const wit of wits(scene)) {
      const { jwk } = claimsOf(wit).cnf
      assert.ok(nine.includes(jwk.alg ?? ''), `alg ${jwk.alg}`)
      assert.deepEqual(
        Object.keys(jwk).filter((it) => privateMembers.includes(it)),
        [],
      )
      const key: JsonWebKey = Key.parse(JSON.parse(wit.witSvidKey))
      const own = createPublicKey(createPrivateKey({ key, format: 'jwk' }))
      assert.ok(own.equals(createPublicKey({ key: jwk, format: 'jwk' })), 'it is another key')
    }
  }),
  check('WT-8', 'jti, when present, is one per token', (scene) => {
    const ids = wits(scene).map(({ witSvid }) => decodeJwt(witSvid).jti)
    const present = ids.filter((jti) => jti !== undefined)
    assert.equal(new Set(present).size, present.length)
  }),
  check('WT-9 WT-15', 'exp is to come', (scene) => {
    for (const wit of wits(scene)) assert.ok(claimsOf(wit).exp * 1000 > Date.now())
  }),
  check('WT-12', 'iss, when present, is no URL of an OIDC issuer', (scene) => {
    for (const { witSvid } of wits(scene))
      assert.doesNotMatch(decodeJwt(witSvid).iss ?? '', /^https:/)
  }),
  check('WT-13', 'no aud', (scene) => {
    for (const { witSvid } of wits(scene)) assert.equal(decodeJwt(witSvid).aud, undefined)
  }),
  check('WT-16', 'who asks again gets a token that is as good', async (scene) => {
    const { witSvid } = await nextToken(scene)
    await verifiedBy(witSvid, ownKeys(scene))
  }),
  check('WT-17', 'it is no JWT-SVID: nobody believes it alone', async (scene) => {
    const svid = wits(scene)[0]?.witSvid ?? ''
    const { code } = await refusal(scene.client.validateJWTSVID({ audience: 'a', svid }))
    assert.equal(code, Code.InvalidArgument)
  }),
]

export const witChecks = [...answers, ...tokens]
