// Which bundle of another trust domain is taken, from whom, and which is not.
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import {
  createForeignBundles,
  type ForeignBundles,
  type ForeignBundlesOptions,
} from '../../ca/foreign-bundles.ts'
import type { FederatedBundleRow, RelationshipRow } from '../../ca/store/model.ts'
import type { Store } from '../../ca/store/store.ts'
import { makeDevCa } from '../../certs-dev/authority.ts'
import { bundleOf } from '../../spiffe/bundle.ts'
import { hasCode } from '../../spiffe/errors.ts'
import { parseSpiffeId, parseTrustDomain } from '../../spiffe/id.ts'
import {
  type Endpoint,
  type ForeignDomain,
  foreignDomain,
  startEndpoint,
} from '../support/bundle-endpoint.ts'
import { type MemoryLog, memoryLog } from '../support/ca.ts'
import { newKeys } from '../support/ca-client.ts'
import { testStore } from '../support/store.ts'
import { makeTestTls, type TestTls } from '../support/test-tls.ts'

const other = parseTrustDomain('other.test')
const endpointId = parseSpiffeId('spiffe://other.test/spire/server')
const { signal } = new AbortController()

let all: AsyncDisposableStack
let store: Store
let domain: ForeignDomain
let own: ForeignDomain
let web: TestTls
let log: MemoryLog
beforeEach(async () => {
  all = new AsyncDisposableStack()
  store = all.use(await testStore())
  domain = foreignDomain('other.test')
  own = foreignDomain('example.org')
  web = await makeTestTls()
  log = memoryLog()
})
afterEach(() => all.disposeAsync())

function fetching(change: Partial<ForeignBundlesOptions['web']> = {}): ForeignBundles {
  return createForeignBundles({
    own: () => bundleOf(parseTrustDomain('example.org'), [own.root]),
    federation: store.federation,
    clock: { now: () => Date.now() },
    log: log.log,
    web: { roots: web.ca, privateAddresses: true, ...change },
  })
}

const publicKey = new Uint8Array(newKeys().publicKey.export({ format: 'der', type: 'spki' }))
const key = (keyId: string) => ({ keyId, publicKey })

function bundleRow(change: Partial<FederatedBundleRow> = {}): FederatedBundleRow {
  const x509 = [{ der: domain.root, tainted: false }]
  return { trustDomain: other, x509, jwt: [], wit: [], refreshHint: 0, sequence: '0', ...change }
}

/** Stores the relationship, https_spiffe unless `id` is undefined, with the bundle that an operator gave. */
async function relate(
  { url }: Endpoint,
  id: RelationshipRow['endpointId'] = endpointId,
  first?: FederatedBundleRow,
) {
  const row: RelationshipRow = { trustDomain: other, url, endpointId: id }
  await store.federation.setRelationship(row, 'absent', first)
  return row
}

async function relateByWeb({ url }: Endpoint): Promise<RelationshipRow> {
  const row: RelationshipRow = { trustDomain: other, url }
  await store.federation.setRelationship(row, 'absent')
  return row
}

const serve = async (...args: Parameters<typeof startEndpoint>) =>
  all.use(await startEndpoint(...args))
const servedBySpiffe = (id: string = endpointId, from = domain) =>
  serve(from.credential(id), domain.document())
const servedByWeb = (body = domain.document()) => serve(web, body, 'localhost')

/** Code and message of the refusal; undefined when the bundle was fetched. */
async function refusal(row: RelationshipRow, bundles = fetching()) {
  try {
    await bundles.refresh(row, { signal })
    return undefined
  } catch (error) {
    if (hasCode(error)) return { code: error.code, message: error.message }
    throw error
  }
}

const unavailable = (message: RegExp) => ({
  code: 'ERR_UNAVAILABLE',
  message: expect.stringMatching(message),
})
const notTaken = (message: RegExp) => ({
  code: 'ERR_PRECONDITION',
  message: expect.stringMatching(message),
})
const storedBundle = () => store.federation.bundle(other)
const changes = () => log.lines.filter((line) => line.includes('another bundle')).length

describe('https_web', () => {
  it('FE-7 FE-12 FE-18 the bundle comes from a server whose host name its certificate has', async () => {
    const row = await relateByWeb(await servedByWeb())
    expect(await refusal(row)).toBeUndefined()
    expect(await storedBundle()).toMatchObject({ trustDomain: other, sequence: '1' })
    expect((await storedBundle())?.x509.map(({ der }) => Buffer.from(der))).toEqual([
      Buffer.from(domain.root),
    ])
    expect(changes()).toBe(1)
  })

  it('FE-18 another host name or another authority is refused', async () => {
    const elsewhere = await makeTestTls('elsewhere.test')
    const row = await relateByWeb(await serve(elsewhere, domain.document(), 'localhost'))
    expect(await refusal(row, fetching({ roots: elsewhere.ca }))).toEqual(
      unavailable(/does not match certificate's altnames/),
    )
    for (const roots of [web.ca, undefined]) {
      expect(await refusal(row, fetching({ roots }))).toEqual(
        unavailable(/unable to (verify|get)|self.signed/),
      )
    }
    expect(await storedBundle()).toBeUndefined()
  })

  it('FE-18 an SVID of the trust domain itself is no certificate of the web', async () => {
    const row = await relateByWeb(await servedBySpiffe())
    expect(await refusal(row)).toEqual(unavailable(/unable to (verify|get)|self.signed/))
  })

  it('FE-26 a private address has to be allowed in ca.yaml', async () => {
    const endpoint = await servedByWeb()
    const row = await relateByWeb(endpoint)
    expect(await refusal(row, fetching({ privateAddresses: false }))).toEqual(
      unavailable(/private network; set federation: \{ privateAddresses: true \} in ca.yaml to/),
    )
    expect(endpoint.asked).toBe(0)
  })
})

describe('https_spiffe', () => {
  it('FE-7 FE-19 FE-20 FE-22 the bundle comes from the server with exactly that ID, by any name', async () => {
    const row = await relate(await servedBySpiffe(), endpointId, bundleRow())
    // where it stands needs no leave: it proves who it is
    expect(await refusal(row, fetching({ privateAddresses: false }))).toBeUndefined()
    expect(await storedBundle()).toMatchObject({ sequence: '1' })
  })

  it.each([
    'spiffe://other.test/spire/server/2',
    'spiffe://other.test/spire',
    'spiffe://third.test/spire/server',
  ])('FE-22 a server that is %s is refused', async (id) => {
    const endpoint = await servedBySpiffe(id)
    const row = await relate(endpoint, endpointId, bundleRow())
    expect(await refusal(row)).toEqual(unavailable(/the peer is|is not trusted here/))
    expect(endpoint.asked).toBe(0)
    expect(await storedBundle()).toMatchObject({ sequence: '0' })
  })

  it('FE-19 TB-14 a certificate of the web is refused, whoever vouches for it', async () => {
    const endpoint = await servedByWeb()
    const row = await relate(endpoint, endpointId, bundleRow())
    expect(await refusal(row)).toEqual(unavailable(/unable to (verify|get)|self.signed/))
    expect(endpoint.asked).toBe(0)
  })

  it('FE-22 TB-14 that ID signed by the authority of another trust domain is refused', async () => {
    const endpoint = await servedBySpiffe(endpointId, foreignDomain('third.test'))
    const row = await relate(endpoint, endpointId, bundleRow())
    expect(await refusal(row)).toEqual(unavailable(/unable to (verify|get)|self.signed/))
    expect(endpoint.asked).toBe(0)
  })

  it('FE-22 an SVID that has expired is refused', async () => {
    const over = { notBefore: Date.now() - 7_200_000, notAfter: Date.now() - 3_600_000 }
    const credential = domain.credential(endpointId, over)
    const row = await relate(await serve(credential, domain.document()), endpointId, bundleRow())
    expect(await refusal(row)).toEqual(unavailable(/expired/))
  })

  it('FE-19 without an X.509 authority of that domain nobody is asked, the public roots least of all', async () => {
    const endpoint = await servedBySpiffe()
    const row = await relate(endpoint)
    const needed = notTaken(/^no X.509 authority of other.test is known.*castellan bundle set/)
    expect(await refusal(row)).toEqual(needed)
    await store.federation.setBundle(bundleRow({ x509: [] }), 'any')
    expect(await refusal(row)).toEqual(needed)
    expect(endpoint.asked).toBe(0)
  })

  it('FE-22 the SVID may come with intermediates; one of them may be the authority of the bundle', async () => {
    const life = { notBefore: Date.now() - 1000, notAfter: Date.now() + 3_600_000 }
    const intermediate = makeDevCa({ name: 'below', parent: domain.ca, ...life })
    const credential = domain.credential(endpointId, life, intermediate)
    const row = await relate(await serve(credential, domain.document()), endpointId, bundleRow())
    expect(await refusal(row)).toBeUndefined()
    const x509 = [{ der: intermediate.certificate, tainted: false }]
    await store.federation.setBundle(bundleRow({ x509 }), 'any')
    expect(await refusal(row)).toBeUndefined()
  })

  it('FE-20 the stored bundle vouches for the next fetch: the peer may change its authority', async () => {
    const next = foreignDomain('other.test')
    const endpoint = await servedBySpiffe()
    endpoint.says(domain.document({ x509: [domain.root, next.root], sequence: 2n }))
    await refusal(await relate(endpoint, endpointId, bundleRow()))
    const moved = await serve(
      next.credential(endpointId),
      domain.document({ x509: [next.root], sequence: 3n }),
    )
    const row = { trustDomain: other, url: moved.url, endpointId }
    await store.federation.setRelationship(row, 'present')
    expect(await refusal(row)).toBeUndefined()
    expect((await storedBundle())?.x509).toHaveLength(1)
  })

  it('FE-21 an endpoint of a third trust domain is verified against the bundle of that one', async () => {
    const third = foreignDomain('third.test')
    const id = parseSpiffeId('spiffe://third.test/publisher')
    const row = await relate(await servedBySpiffe(id, third), id, bundleRow())
    expect(await refusal(row)).toEqual(notTaken(/^no X.509 authority of third.test is known/))
    const x509 = [{ der: third.root, tainted: false }]
    const thirdBundle = bundleRow({ trustDomain: parseTrustDomain('third.test'), x509 })
    await store.federation.setBundle(thirdBundle, 'absent')
    expect(await refusal(row)).toBeUndefined()
  })

  it('FE-21 an endpoint that one of our own serves is verified against our bundle', async () => {
    const id = parseSpiffeId('spiffe://example.org/publisher')
    const row = await relate(await servedBySpiffe(id, own), id)
    expect(await refusal(row)).toBeUndefined()
  })
})

describe('what is fetched', () => {
  it('FE-8 only with the suites of Mozilla’s intermediate set', async () => {
    const old = { maxVersion: 'TLSv1.2', ciphers: 'ECDHE-ECDSA-AES128-SHA256' } as const
    const row = await relateByWeb(await serve({ ...web, ...old }, domain.document(), 'localhost'))
    expect(await refusal(row)).toEqual(unavailable(/handshake failure/))
  })

  it('FE-17 FE-26 no redirect is followed', async () => {
    const target = await servedByWeb()
    const endpoint = await servedByWeb()
    endpoint.says((_, response) => void response.writeHead(302, { location: target.url }).end())
    expect(await refusal(await relateByWeb(endpoint))).toEqual(unavailable(/302, not 200$/))
    expect(target.asked).toBe(0)
  })

  it('FE-26 a body over a mebibyte is not read', async () => {
    const row = await relateByWeb(await servedByWeb(' '.repeat((1 << 20) + 1)))
    expect(await refusal(row)).toEqual(unavailable(/over 1048576 bytes$/))
  })

  it('FE-26 who is stopped does not wait for the answer', async () => {
    const stop = new AbortController()
    const endpoint = await servedByWeb()
    endpoint.says(() => stop.abort(new Error('the authority stops')))
    const row = await relateByWeb(endpoint)
    const refreshed = fetching().refresh(row, stop)
    await expect(refreshed).rejects.toMatchObject({ code: 'ERR_UNAVAILABLE' })
  })

  it.each([
    ['TB-4', '{}', /keys is missing/],
    ['TB-1', 'not found', /is no JSON/],
    ['TB-1', Buffer.from([0x7b, 0xff, 0x7d]), /not valid/],
    ['as from nobody:', '{ "keys": [] }', /holds no authority$/],
    ['TB-6', '{ "keys": [{ "kty": "EC", "use": "sig" }] }', /holds no authority$/],
  ])('%s a document that is none is refused: %j', async (_, body, reason) => {
    const endpoint = await servedByWeb()
    const row = await relateByWeb(endpoint)
    await refusal(row)
    endpoint.says((__, response) => void response.end(body))
    expect(await refusal(row)).toEqual(notTaken(reason))
    expect(await storedBundle()).toMatchObject({ sequence: '1', x509: [{}] })
  })

  it('TB-2 FE-25b a sequence before the stored one is refused, an equal or later one taken', async () => {
    const endpoint = await servedByWeb(domain.document({ sequence: 2n ** 63n + 1n }))
    const row = await relateByWeb(endpoint)
    await refusal(row)
    endpoint.says(domain.document({ sequence: 2n ** 63n, jwt: [key('old')] }))
    expect(await refusal(row)).toEqual(
      notTaken(/sequence 9223372036854775808 is before 9223372036854775809.*castellan bundle set/),
    )
    expect(await storedBundle()).toMatchObject({ sequence: String(2n ** 63n + 1n), jwt: [] })
    endpoint.says(domain.document({ sequence: 2n ** 63n + 1n, jwt: [key('same')] }))
    expect(await refusal(row)).toBeUndefined()
    endpoint.says(domain.document({ sequence: 2n ** 64n - 1n, jwt: [key('new')] }))
    expect(await refusal(row)).toBeUndefined()
    expect(await storedBundle()).toMatchObject({ sequence: '18446744073709551615' })
  })

  it('FE-4 without a sequence the newest fetch wins', async () => {
    const endpoint = await servedByWeb(domain.document({ sequence: 7n }))
    const row = await relateByWeb(endpoint)
    await refusal(row)
    endpoint.says(domain.document({ sequence: undefined, jwt: [key('a')] }))
    expect(await refusal(row)).toBeUndefined()
    expect(await storedBundle()).toMatchObject({ sequence: '0', jwt: [{ keyId: 'a' }] })
  })

  it('the same bundle is not written again, in whatever order its keys are', async () => {
    const endpoint = await servedByWeb(domain.document({ jwt: [key('a'), key('b')] }))
    const row = await relateByWeb(endpoint)
    await refusal(row)
    const before = await store.events.after(0, 100)
    endpoint.says(domain.document({ jwt: [key('b'), key('a')] }))
    expect(await refusal(row)).toBeUndefined()
    expect(await store.events.after(0, 100)).toEqual(before)
    expect([endpoint.asked, changes()]).toEqual([2, 1])
  })

  it('of two replicas on one store the second writes nothing', async () => {
    const row = await relateByWeb(await servedByWeb())
    expect(await refusal(row)).toBeUndefined()
    const before = await store.events.after(0, 100)
    expect(await refusal(row, fetching())).toBeUndefined()
    expect(await store.events.after(0, 100)).toEqual(before)
  })

  it('FE-6 FE-9 is the bundle of the trust domain of the relationship, whatever the document says', async () => {
    const text = domain.document().replace('{', '{ "trust_domain": "example.org",')
    await refusal(await relateByWeb(await servedByWeb(text)))
    const names = (await store.federation.bundles()).map(({ trustDomain }) => trustDomain)
    expect(names).toEqual([other])
  })

  it('FE-24 is not written when the relationship ended or changed meanwhile', async () => {
    const endpoint = await servedByWeb()
    const row = await relateByWeb(endpoint)
    endpoint.says(async (_, response) => {
      await store.federation.deleteRelationship(other)
      response.end(domain.document())
    })
    expect(await refusal(row)).toEqual(notTaken(/relationship was changed while/))
    expect(await storedBundle()).toBeUndefined()
  })

  it('FE-25 each fetch leaves a line', async () => {
    const row = await relateByWeb(await servedByWeb())
    await refusal(row)
    const line = log.lines.find((it) => it.includes('fetched a bundle'))
    expect(JSON.parse(line ?? '{}')).toMatchObject({
      trustDomain: other,
      url: row.url,
      sequence: '1',
    })
  })

  it('TB-3 a hint of 64 bits stays within what SPIRE’s messages carry', async () => {
    const text = domain
      .document({ refreshHint: 1 })
      .replace(/_hint": 1/, '_hint": 18446744073709551615')
    await refusal(await relateByWeb(await servedByWeb(text)))
    expect((await storedBundle())?.refreshHint).toBe(Number.MAX_SAFE_INTEGER)
  })
})
