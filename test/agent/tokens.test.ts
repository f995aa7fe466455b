// The JWT and WIT profiles of the Workload API: a real agent, a real authority, tokens that jose reads.
import { createHash, createPublicKey, type JsonWebKey, sign, verify } from 'node:crypto'
import { Code, ConnectError, createClient } from '@connectrpc/connect'
import { decodeJwt, decodeProtectedHeader, importJWK, jwtVerify } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openTransport, securityHeader } from '../../client/transport.ts'
import { SpiffeWorkloadAPI } from '../../proto/gen/spiffe/workload/workloadapi_pb.js'
import { Bundle } from '../../proto/gen/spire/api/server/bundle/v1/bundle_pb.js'
import { Entry } from '../../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import { LocalAuthority } from '../../proto/gen/spire/api/server/localauthority/v1/localauthority_pb.js'
import { startNode, type TestNode, trustDomain } from '../support/node.ts'
import { createTestIssuer } from '../support/token-issuer.ts'

const uid = `unix:uid:${process.getuid?.()}`

const patience = () => AbortSignal.timeout(60_000)

let node: TestNode
let local: ReturnType<typeof openTransport>
const client = () => createClient(SpiffeWorkloadAPI, local.transport)
const idOf = (path: string) => `spiffe://${trustDomain}${path}`

beforeAll(async () => {
  node = await startNode({ agent: { incubating: true } })
  local = openTransport(
    { kind: 'unix', path: node.agent.socket },
    { interceptors: [securityHeader] },
  )
  await node.register('/web', [uid])
  await node.register('/batch', [uid])
  // until the agent has heard of both
  for await (const { svids } of client().fetchX509SVID({}, { signal: patience() }))
    if (svids.length === 2) break
}, 120_000)
afterAll(async () => {
  local[Symbol.dispose]()
  await node[Symbol.asyncDispose]()
})

async function refusal(promise: Promise<unknown>): Promise<{ code: Code; message: string }> {
  const error = await promise.then(
    () => new Error('it succeeded'),
    (reason: unknown) => reason,
  )
  if (!(error instanceof ConnectError)) throw error
  return { code: error.code, message: error.rawMessage }
}

async function first<T>(stream: AsyncIterable<T>): Promise<T> {
  for await (const message of stream) return message
  throw new Error('the stream ended')
}

async function jwtKeys() {
  const { bundles } = await first(client().fetchJWTBundles({}, { signal: patience() }))
  const text = Buffer.from(bundles[`spiffe://${trustDomain}`] ?? new Uint8Array()).toString()
  const { keys }: { keys: { kid: string; use: string; kty: string }[] } = JSON.parse(text)
  return { names: Object.keys(bundles), keys }
}

describe('FetchJWTSVID', () => {
  it('WA-1 WA-19 gives a token for every identity, the default one first, or for the one that is named', async () => {
    const { svids } = await client().fetchJWTSVID({ audience: ['db'] })
    const x509 = await first(client().fetchX509SVID({}, { signal: patience() }))
    const all = svids.map(({ spiffeId }) => spiffeId)
    expect(all).toEqual(x509.svids.map(({ spiffeId }) => spiffeId))
    expect(all.toSorted()).toEqual([idOf('/batch'), idOf('/web')])
    const one = await client().fetchJWTSVID({ audience: ['db'], spiffeId: idOf('/batch') })
    expect(one.svids.map(({ spiffeId }) => spiffeId)).toEqual([idOf('/batch')])
    const { code } = await refusal(
      client().fetchJWTSVID({ audience: ['db'], spiffeId: idOf('/other') }),
    )
    expect(code).toBe(Code.PermissionDenied)
    const malformed = client().fetchJWTSVID({ audience: ['db'], spiffeId: 'batch' })
    expect(await refusal(malformed)).toMatchObject({ code: Code.InvalidArgument })
  })

  it('WA-18 an audience is mandatory, several are allowed', async () => {
    for (const audience of [[], [''], ['a', '']]) {
      const refused = await refusal(client().fetchJWTSVID({ audience }))
      expect(refused.code).toBe(Code.InvalidArgument)
      expect(refused.message).toMatch(/^audience/)
    }
    const { svids } = await client().fetchJWTSVID({ audience: ['db', 'cache'] })
    expect(decodeJwt(svids[0]?.svid ?? '').aud).toEqual(['db', 'cache'])
  })

  it('WA-20 JW-2 JW-6 what it gives verifies against the bundle it gives', async () => {
    const { svids } = await client().fetchJWTSVID({ audience: ['db'] })
    const { keys } = await jwtKeys()
    for (const { svid, spiffeId } of svids) {
      const { kid, ...header } = decodeProtectedHeader(svid)
      expect(header).toEqual({ alg: 'ES256', typ: 'JWT' })
      const key = keys.find((it) => it.kid === kid)
      const { payload } = await jwtVerify(svid, await importJWK(key ?? { kty: '' }, 'ES256'))
      expect(payload.sub).toBe(spiffeId)
    }
  })

  it('R11 a kept token is given again for the same identity and audiences, and for no others', async () => {
    const token = async (audience: string[], path = '/web') => {
      const { svids } = await client().fetchJWTSVID({ audience, spiffeId: idOf(path) })
      return svids[0]?.svid ?? ''
    }
    const ab = await token(['a', 'b'])
    expect(await token(['b', 'a'])).toBe(ab)
    expect(decodeJwt(await token(['a'])).aud).toEqual(['a'])
    expect(decodeJwt(await token(['a,b'])).aud).toEqual(['a,b'])
    expect(decodeJwt(await token(['a', 'b'], '/batch')).sub).toBe(idOf('/batch'))
    expect(await token(['a', 'b'])).toBe(ab)
  })
})

describe('FetchJWTBundles', () => {
  it('WA-10 WA-21 names trust domains by their IDs, and holds keys of JWT-SVIDs only', async () => {
    const { names, keys } = await jwtKeys()
    expect(names).toEqual([`spiffe://${trustDomain}`])
    expect(keys.map(({ use }) => use)).toEqual(['jwt-svid'])
  })

  it('FE-1 pushes a key before it signs', async () => {
    const stop = new AbortController()
    const stream = client().fetchJWTBundles({}, { signal: stop.signal })
    const messages = stream[Symbol.asyncIterator]()
    await messages.next()
    const made = await createClient(LocalAuthority, node.local).prepareJWTAuthority({})
    const { value } = await messages.next()
    const text = Buffer.from(value?.bundles[`spiffe://${trustDomain}`] ?? '').toString()
    expect(text).toContain(made.preparedAuthority?.authorityId ?? 'none')
    stop.abort()
  })
})

describe('ValidateJWTSVID', () => {
  it('WA-22 says whose it is and what it claims, for the right audience only', async () => {
    const { svids } = await client().fetchJWTSVID({ audience: ['db'], spiffeId: idOf('/web') })
    const svid = svids[0]?.svid ?? ''
    const { spiffeId, claims } = await client().validateJWTSVID({ audience: 'db', svid })
    expect(spiffeId).toBe(idOf('/web'))
    expect(claims).toMatchObject({ sub: idOf('/web'), aud: ['db'] })
    const wrong = await refusal(client().validateJWTSVID({ audience: 'DB', svid }))
    expect(wrong.code).toBe(Code.InvalidArgument)
    expect(wrong.message).not.toContain(svid)
  })

  it('WA-9 audience and token are mandatory', async () => {
    for (const request of [{ audience: '', svid: 'a.b.c' }, { audience: 'db' }]) {
      expect((await refusal(client().validateJWTSVID(request))).code).toBe(Code.InvalidArgument)
    }
  })

  it('FE-10 JW-14 WA-24 a token of another trust domain is believed once it is federated, by its own keys', async () => {
    const issuer = await createTestIssuer('https://other.example', { alg: 'ES256' })
    const claims = { sub: 'spiffe://other.org/web', aud: 'db', secret: 'of theirs' }
    const svid = await issuer.token(claims)
    const jwk: JsonWebKey = JSON.parse(issuer.jwks).keys[0]
    const publicKey = createPublicKey({ key: jwk, format: 'jwk' })
    const validate = () => client().validateJWTSVID({ audience: 'db', svid })
    expect((await refusal(validate())).message).toContain('other.org')
    await createClient(Bundle, node.local).batchSetFederatedBundle({
      bundle: [
        {
          trustDomain: 'other.org',
          jwtAuthorities: [
            { keyId: 'key-1', publicKey: publicKey.export({ format: 'der', type: 'spki' }) },
          ],
        },
      ],
    })
    const entry = {
      spiffeId: { trustDomain, path: '/federating' },
      parentId: { trustDomain, path: '/node' },
      selectors: [{ type: 'unix', value: uid.slice('unix:'.length) }],
      federatesWith: ['other.org'],
    }
    await createClient(Entry, node.local).batchCreateEntry({ entries: [entry] })
    for await (const { bundles } of client().fetchJWTBundles({}, { signal: patience() }))
      if ('spiffe://other.org' in bundles) break
    const answer = await validate()
    expect(answer.spiffeId).toBe('spiffe://other.org/web')
    expect(answer.claims).not.toHaveProperty('secret')
    const { federatedBundles } = await first(client().fetchX509SVID({}, { signal: patience() }))
    expect(Object.keys(federatedBundles)).toEqual(['spiffe://other.org'])
  })
})

describe('WIT profile', () => {
  it('WA-25 WT-1 WT-2 WT-6 WT-13 gives tokens whose key is the one that is given beside', async () => {
    const { svids } = await first(client().fetchWITSVID({}, { signal: patience() }))
    expect(svids.map(({ spiffeId }) => spiffeId)).toContain(idOf('/web'))
    const [svid] = svids
    const { cnf, sub, aud, exp } = decodeJwt<{ cnf: { jwk: Record<string, string> } }>(
      svid?.witSvid ?? '',
    )
    expect(decodeProtectedHeader(svid?.witSvid ?? '')).toMatchObject({
      typ: 'wit+jwt',
      kid: expect.stringMatching(/./),
    })
    expect([sub, aud]).toEqual([svid?.spiffeId, undefined])
    expect(exp).toBeGreaterThan(Date.now() / 1000)
    const key: Record<string, string> = JSON.parse(svid?.witSvidKey ?? '')
    const signed = sign('sha256', Buffer.from('proof'), { key, format: 'jwk' })
    const publicKey = createPublicKey({ key: cnf.jwk, format: 'jwk' })
    expect(cnf.jwk).not.toHaveProperty('d')
    expect(verify('sha256', Buffer.from('proof'), publicKey, signed)).toBe(true)
  })

  it('WA-25 gives one identity, or refuses what is not the caller’s', async () => {
    const one = await first(
      client().fetchWITSVID({ spiffeId: idOf('/batch') }, { signal: patience() }),
    )
    expect(one.svids.map(({ spiffeId }) => spiffeId)).toEqual([idOf('/batch')])
    const other = first(client().fetchWITSVID({ spiffeId: idOf('/o') }, { signal: patience() }))
    expect((await refusal(other)).code).toBe(Code.PermissionDenied)
  })

  it('WA-26 bundles hold keys of WIT-SVIDs only, each with its id', async () => {
    const { bundles } = await first(client().fetchWITBundles({}, { signal: patience() }))
    const { keys }: { keys: { kid: string; use: string }[] } = JSON.parse(
      bundles[`spiffe://${trustDomain}`] ?? '{}',
    )
    expect(keys).toEqual([expect.objectContaining({ use: 'wit-svid', kid: expect.any(String) })])
  })
})

describe('while the authority is away', () => {
  it('tokens that are kept are given, also by an agent that was started meanwhile; others not now', async () => {
    const { svids } = await client().fetchJWTSVID({ audience: ['kept'] })
    const digest = (text = '') => createHash('sha256').update(text).digest('hex')
    const before = svids.map(({ svid }) => digest(svid))
    await node.stopAuthority()
    await node.restartAgent()
    const again = await client().fetchJWTSVID({ audience: ['kept'] })
    expect(again.svids.map(({ svid }) => digest(svid))).toEqual(before)
    const { code } = await refusal(client().fetchJWTSVID({ audience: ['new'] }))
    expect(code).toBe(Code.Unavailable)
    const x509 = await first(client().fetchX509SVID({}, { signal: patience() }))
    expect(x509.svids.map(({ spiffeId }) => spiffeId)).toContain(idOf('/web'))
    await node.startAuthority()
  })
})
