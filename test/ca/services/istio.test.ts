// Istio's certificate service over the wire, as its agents call it: with a token, then with the
// certificate they got, and with things that should get them nothing.
import { X509Certificate } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createClient } from '@connectrpc/connect'
import { afterAll, describe, expect, it } from 'vitest'
import { DenyRules } from '../../../proto/gen/castellan/deny/v1/deny_rules_pb.js'
import { IstioCertificateService } from '../../../proto/gen/istio/v1/auth/ca_pb.js'
import { LocalAuthority } from '../../../proto/gen/spire/api/server/localauthority/v1/localauthority_pb.js'
import { SVID } from '../../../proto/gen/spire/api/server/svid/v1/svid_pb.js'
import { parsePem, toPem } from '../../../spiffe/pem.ts'
import { type Connection, type Credential, denialOf, newKeys } from '../../support/ca-client.ts'
import { makeCsr, requestedNames } from '../../support/csr.ts'
import { testFolder } from '../../support/folder.ts'
import { sharedCa } from '../../support/shared-ca.ts'
import { createTestIssuer, type TestIssuer } from '../../support/token-issuer.ts'

const folder = testFolder()
afterAll(() => folder[Symbol.dispose]())
let issuer: TestIssuer
const ca = sharedCa(async () => {
  issuer = await createTestIssuer()
  writeFileSync(join(folder.path, 'keys.json'), issuer.jwks)
  const config = `istio:
  serverNames: [istiod.istio-system.svc]
  tokens:
    - { issuer: '${issuer.issuer}', audiences: [istio-ca], jwks: { file: keys.json } }
`
  return { folder: folder.path, config }
})

const opaque = { code: 'Unauthenticated', message: 'request authenticate failure' }
const cart = 'URI:spiffe://example.org/ns/shop/sa/cart'
const pemOf = (csr: Uint8Array) => toPem(csr, 'CERTIFICATE REQUEST')

interface Asking {
  readonly keys?: ReturnType<typeof newKeys>
  readonly csr?: string
  readonly seconds?: bigint
  readonly metadata?: Record<string, string>
  readonly headers?: Record<string, string>
}

/** What comes back, in order; `how` is the call as an Istio agent makes it unless said otherwise. */
async function ask(connection: Connection, how: Asking = {}): Promise<string[]> {
  const { keys = newKeys(), seconds = 3600n, metadata = { CertSigner: '' }, headers = {} } = how
  const client = createClient(IstioCertificateService, connection.transport)
  const csr = how.csr ?? pemOf(makeCsr(keys))
  const request = { csr, validityDuration: seconds, metadata }
  return (await client.createCertificate(request, { headers })).certChain
}

const bearer = async (claims = {}) => ({ authorization: `Bearer ${await issuer.token(claims)}` })
const leafOf = ([leaf = '']: readonly string[]) => new X509Certificate(leaf)

/** A certificate by token, and the connection that uses it. */
async function credentialByToken(): Promise<Credential> {
  using connection = ca.remote()
  const keys = newKeys()
  const [leaf = ''] = await ask(connection, { keys, headers: await bearer() })
  return { keys, chain: parsePem(leaf, 'CERTIFICATE', 'leaf') }
}

describe('a token', () => {
  it('gets a certificate for its service account: leaf first, all roots in the last element', async () => {
    const { preparedAuthority } = await ca.local.client(LocalAuthority).prepareX509Authority({})
    expect(preparedAuthority?.authorityId).toMatch(/^[0-9a-f]{40}$/)
    using connection = ca.remote()
    const chain = await ask(connection, { headers: await bearer() })
    expect(chain).toHaveLength(2)
    const [leaf = '', roots = ''] = chain
    expect(leaf).toMatch(/^-----BEGIN CERTIFICATE-----\n[\w+=/\n]+-----END CERTIFICATE-----\n$/)
    const all = parsePem(roots, 'CERTIFICATE', 'roots').map((der) => new X509Certificate(der))
    expect(all).toHaveLength(2)
    const seen = new X509Certificate(leaf)
    expect(seen.subjectAltName).toBe(cart)
    expect(all.some((root) => seen.verify(root.publicKey))).toBe(true)
    expect(seen.validToDate.getTime() - Date.now()).toBeGreaterThan(3_500_000)
  })

  it('counts, and nothing that the CSR or a proxy’s header asks for does', async () => {
    using connection = ca.remote()
    const keys = newKeys()
    const csr = makeCsr(keys, {
      attributes: [requestedNames([0x86, 'spiffe://example.org/ns/kube-system/sa/admin'])],
    })
    const headers = {
      ...(await bearer()),
      clusterid: 'other',
      'x-forwarded-client-cert': 'By=x;URI=spiffe://example.org/ns/kube-system/sa/admin',
    }
    expect(leafOf(await ask(connection, { csr: pemOf(csr), headers })).subjectAltName).toBe(cart)
    const onlyXfcc = { 'x-forwarded-client-cert': headers['x-forwarded-client-cert'] }
    expect(await denialOf(ask(connection, { headers: onlyXfcc }))).toEqual(opaque)
  })

  it('lives as long as asked, by default as long as any SVID; what is too long or too short is an error', async () => {
    using connection = ca.remote()
    const headers = await bearer()
    const lives: number[] = []
    for (const seconds of [0n, -5n, 86_400n]) {
      const { validToDate } = leafOf(await ask(connection, { seconds, headers }))
      lives.push(Math.round((validToDate.getTime() - Date.now()) / 60_000))
    }
    expect(lives).toEqual([60, 60, 1440])
    for (const seconds of [86_401n, 299n, 1n, 2n ** 63n - 1n]) {
      expect(await denialOf(ask(connection, { seconds, headers }))).toEqual({
        code: 'InvalidArgument',
        message: 'validity_duration is not between 300 and 86400 seconds',
      })
    }
  })

  it('that does not convince is refused in words that tell nothing; the log has the reason', async () => {
    using connection = ca.remote()
    const denials = [
      {},
      { authorization: 'Bearer x' },
      await bearer({ aud: ['vault'] }),
      await bearer({ iss: 'https://other.example' }),
      await bearer({ sub: 'system:node:n1' }),
    ]
    for (const headers of denials)
      expect(await denialOf(ask(connection, { headers }))).toEqual(opaque)
    expect(ca.lines.join('')).toContain('of an issuer that is not configured')
    const token = await issuer.token({ aud: ['vault'] })
    await denialOf(ask(connection, { headers: { authorization: `Bearer ${token}` } }))
    expect(ca.lines.join('')).not.toContain(token)
  })

  it('gets nobody else’s identity', async () => {
    using connection = ca.remote()
    const ImpersonatedIdentity = 'spiffe://example.org/ns/shop/sa/admin'
    const asking = { headers: await bearer(), metadata: { ImpersonatedIdentity } }
    expect(await denialOf(ask(connection, asking))).toEqual(opaque)
    const signer = { headers: await bearer(), metadata: { CertSigner: 'other' } }
    expect(await denialOf(ask(connection, signer))).toEqual({
      code: 'InvalidArgument',
      message: 'metadata.CertSigner: there is no signer to be chosen',
    })
  })

  const keys = newKeys()
  const signedByOther = makeCsr(keys, { signingKey: newKeys().privateKey })
  const csrs = [
    ['empty', '', 'csr: csr: no CERTIFICATE REQUEST block'],
    ['no PEM', 'x', 'csr: csr: text outside of PEM blocks'],
    ['two', pemOf(makeCsr(keys)).repeat(2), 'csr: is more than one CERTIFICATE REQUEST'],
    [
      'signed by another key',
      pemOf(signedByOther),
      'CSR refused: its signature is not by its own key',
    ],
  ] as const
  it.each(csrs)('gets nothing for a CSR that is %s', async (_, csr, message) => {
    using connection = ca.remote()
    const denial = await denialOf(ask(connection, { csr, headers: await bearer() }))
    expect(denial).toEqual({ code: 'InvalidArgument', message })
  })
})

describe('a certificate of this service', () => {
  it('renews itself without a token, again and again', async () => {
    let credential = await credentialByToken()
    for (let i = 0; i < 2; i++) {
      using connection = ca.remote(credential)
      const keys = newKeys()
      const chain = await ask(connection, { keys })
      expect(leafOf(chain).subjectAltName).toBe(cart)
      credential = { keys, chain: parsePem(chain[0] ?? '', 'CERTIFICATE', 'leaf') }
    }
  })

  it('counts before a token that comes with it', async () => {
    using connection = ca.remote(await credentialByToken())
    const headers = await bearer({ sub: 'system:serviceaccount:shop:other' })
    expect(leafOf(await ask(connection, { headers })).subjectAltName).toBe(cart)
  })
})

describe('a certificate of this service that is denied', () => {
  it('takes all with it that were renewed from it, and whoever has a token begins anew', async () => {
    const first = await credentialByToken()
    const serialOf = (pem: string) => new X509Certificate(pem).serialNumber.toLowerCase()
    using connection = ca.remote(first)
    const keys = newKeys()
    const [renewed = ''] = await ask(connection, { keys })
    const target = {
      case: 'serial' as const,
      value: serialOf(toPem(first.chain[0] ?? new Uint8Array(), 'CERTIFICATE')),
    }
    const rule = await ca.local.client(DenyRules).addRule({ rule: { target } })
    expect(rule.expiresAt).toBe(0n)
    using thief = ca.remote({ keys, chain: parsePem(renewed, 'CERTIFICATE', 'leaf') })
    expect(await denialOf(ask(thief))).toEqual(opaque)
    using owner = ca.remote()
    expect(leafOf(await ask(owner, { headers: await bearer() })).subjectAltName).toBe(cart)
    using other = ca.remote(await credentialByToken())
    expect(leafOf(await ask(other)).subjectAltName).toBe(cart)
  })
})

describe('a certificate that came another way', () => {
  it('renews nothing here: an agent’s', async () => {
    using connection = ca.remote(await ca.join())
    expect(await denialOf(ask(connection))).toEqual(opaque)
  })

  it('renews nothing here: a minted one of the same identity', async () => {
    const keys = newKeys()
    const id = 'spiffe://example.org/ns/shop/sa/cart'
    const csr = makeCsr(keys, { attributes: [requestedNames([0x86, id])] })
    const { svid } = await ca.local.client(SVID).mintX509SVID({ csr })
    using connection = ca.remote({ keys, chain: svid?.certChain ?? [] })
    expect(await denialOf(ask(connection))).toEqual(opaque)
    // its token does
    const headers = await bearer()
    expect(leafOf(await ask(connection, { headers })).subjectAltName).toBe(cart)
  })
})

it('the server’s certificate has the names that Istio’s agents check', async () => {
  const { connect } = await import('node:tls')
  const { port } = ca.running
  const socket = connect({
    ...{ host: '127.0.0.1', port, ca: ca.roots, ALPNProtocols: ['h2'] },
    servername: 'istiod.istio-system.svc',
  })
  await new Promise((resolve, reject) =>
    socket.once('secureConnect', resolve).once('error', reject),
  )
  expect(socket.authorized).toBe(true)
  expect(socket.getPeerX509Certificate()?.subjectAltName).toBe(
    'URI:spiffe://example.org/spire/server, DNS:istiod.istio-system.svc',
  )
  socket.destroy()
})
