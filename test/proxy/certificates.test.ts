// Client certificates before a sidecar, one by one: who is nobody does not get through the handshake, and of who is
// somebody the workload is told that alone (proxies.md §7.2; peers.test.ts has why, denial.test.ts the deny-list).
import { connect } from 'node:tls'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { makeDevCa } from '../../certs-dev/authority.ts'
import { bundleOf, type X509Bundle } from '../../spiffe/bundle.ts'
import { parseTrustDomain } from '../../spiffe/id.ts'
import { keyPairToPem } from '../../spiffe/pem.ts'
import { corpusCertificates, leafKey } from '../support/corpus-certificates.ts'
import {
  contextFor,
  createTestSource,
  makeTestAuthority,
  stateOf,
  type TestSource,
} from '../support/mesh.ts'
import { clientCertificates, type Presented } from '../support/odd-certificates.ts'
import { inboundTo } from '../support/shop.ts'
import {
  type App,
  peerOptions,
  type Sidecar,
  startApp,
  startSidecar,
  untilClosed,
} from '../support/sidecar.ts'

const hour = 3_600_000
const caLife = { notBefore: Date.now() - hour, notAfter: Date.now() + 24 * hour }
const own = makeDevCa({ name: 'ours', ...caLife })
const partner = makeDevCa({ name: "the partner's", ...caLife })
const id = 'spiffe://example.org/ns/shop/sa/client'
const partnerId = 'spiffe://partner.test/ns/shop/sa/web'

// whose bundle is not that of the clients, so that a test chooses the latter
const authority = makeTestAuthority('server.test')
const web = 'spiffe://server.test/ns/shop/sa/web'
const server = { authority, id: web }

let app: App
let source: TestSource
let sidecar: Sidecar
/** what the workload was told of who calls, once for each request */
let told: string[] = []

const believing = (...bundles: readonly X509Bundle[]) =>
  contextFor(authority.issue(web), authority.bundle, ...bundles)
const both = [
  bundleOf(parseTrustDomain('example.org'), [own.certificate]),
  bundleOf(parseTrustDomain('partner.test'), [partner.certificate]),
]

beforeAll(async () => {
  app = await startApp(({ headersDistinct }, response) => {
    told.push((headersDistinct['x-spiffe-peer-id'] ?? []).join(' and '))
    response.end()
  })
  source = createTestSource(believing(...both))
  sidecar = await startSidecar(
    { inbound: [inboundTo(app.port)] },
    { source, state: stateOf('[{}]') },
  )
})
afterAll(async () => {
  for (const it of [sidecar, app]) await it[Symbol.asyncDispose]()
})

const request = [
  'GET / HTTP/1.1',
  'Host: shop',
  'X-Spiffe-Peer-Id: spiffe://example.org/admin',
  'Connection: close',
  '',
  '',
].join('\r\n')

/** The first line of the answer, and what the workload was told; empty and nothing for who is refused. */
async function meet(svid: Presented): Promise<{ answer: string; told: readonly string[] }> {
  told = []
  const shown = svid && keyPairToPem(svid)
  const socket = connect({ ...peerOptions(sidecar.port, undefined, server), ...shown })
  const text = untilClosed(socket)
  socket.write(request)
  const [answer = ''] = (await text).split('\r\n')
  return { answer, told }
}

const served = (...identities: readonly string[]) => ({
  answer: 'HTTP/1.1 200 OK',
  told: identities,
})
const refused = { answer: '', told: [] }

const accepted: Readonly<Record<string, string>> = {
  good: id,
  'under an intermediate': id,
  'no extended key usage': id,
  'federated, good': partnerId,
  'federated, under an intermediate': partnerId,
  'a DNS name that reads like ours, of a partner': partnerId,
}

describe('a certificate of a client', () => {
  const all = Object.entries(clientCertificates({ own, partner, id, partnerId }))

  it.each(all)('%s', async (name, svid) => {
    const identity = accepted[name]
    expect(await meet(svid)).toEqual(identity === undefined ? refused : served(identity))
  })
})

describe('the corpus of certificates', () => {
  it.each(corpusCertificates)(
    '$file: $expect, $reason',
    async ({ file, chain, bundles, expect: wanted }) => {
      source.put(believing(...bundles))
      const { answer, told: identities } = await meet({ chain, key: leafKey() })
      if (wanted === 'reject') expect({ answer, told: identities }).toEqual(refused)
      else {
        const domain = file === 'good-federated.pem' ? 'othertd' : 'td'
        expect(answer).toBe('HTTP/1.1 200 OK')
        expect(identities).toEqual([
          expect.stringMatching(`^spiffe://${domain}/ns/[a-z]+/sa/[a-z]+$`),
        ])
      }
    },
  )
})
