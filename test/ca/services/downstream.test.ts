// Authorities below this one, and keys of others in its bundle.
import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { beforeAll, describe, expect, it } from 'vitest'
import { type LeafFields, leafTbs, wrapSigned } from '../../../ca/profile.ts'
import { createAuthority } from '../../../ca/x509.ts'
import { DenyRules } from '../../../proto/gen/castellan/deny/v1/deny_rules_pb.js'
import { Agent } from '../../../proto/gen/spire/api/server/agent/v1/agent_pb.js'
import { Bundle } from '../../../proto/gen/spire/api/server/bundle/v1/bundle_pb.js'
import { Entry } from '../../../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import { LocalAuthority } from '../../../proto/gen/spire/api/server/localauthority/v1/localauthority_pb.js'
import { SVID } from '../../../proto/gen/spire/api/server/svid/v1/svid_pb.js'
import { bundleOf, bundleSourceOf } from '../../../spiffe/bundle.ts'
import { parseCertificate } from '../../../spiffe/certificate.ts'
import { parseSpiffeId, parseTrustDomain } from '../../../spiffe/id.ts'
import { keyIdOf } from '../../../spiffe/key-id.ts'
import { verifySvid } from '../../../spiffe/svid.ts'
import { type Connection, type Credential, denialOf, newKeys } from '../../support/ca-client.ts'
import { makeCsr } from '../../support/csr.ts'
import { hasOpenssl, opensslVerify } from '../../support/openssl.ts'
import { sharedCa } from '../../support/shared-ca.ts'

const ca = sharedCa()
const trustDomain = parseTrustDomain('example.org')
const server = '/below/spire-server'
let below: Connection
let stranger: Connection

/** A workload of `agent` with an entry, over TLS with its SVID. */
async function workload(agent: Credential & { id: string }, path: string, downstream: boolean) {
  const { results } = await ca.local.client(Entry).batchCreateEntry({
    entries: [
      {
        spiffeId: { trustDomain, path },
        parentId: { trustDomain, path: agent.id.slice(`spiffe://${trustDomain}`.length) },
        selectors: [{ type: 'unix', value: `path:${path}` }],
        downstream,
      },
    ],
  })
  const keys = newKeys()
  using connection = ca.remote(agent)
  const answer = await connection.client(SVID).batchNewX509SVID({
    params: [{ entryId: results[0]?.entry?.id ?? '', csr: makeCsr(keys) }],
  })
  return ca.remote({ chain: answer.results[0]?.svid?.certChain ?? [], keys })
}

beforeAll(async () => {
  const agent = await ca.join()
  below = await workload(agent, server, true)
  stranger = await workload(agent, '/web', false)
})

function signedLeafBy(fields: LeafFields, key: KeyObject): Uint8Array {
  const tbs = leafTbs(fields)
  return wrapSigned(tbs, sign('sha256', tbs, key))
}

const published = async () => ca.local.client(Bundle).getBundle({})

describe('an authority below this one', () => {
  it('gets a CA certificate whose leaves verify against our bundle, also for OpenSSL', async () => {
    const keys = newKeys()
    const answer = await below.client(SVID).newDownstreamX509CA({ csr: makeCsr(keys) })
    const [intermediate = new Uint8Array(), ...others] = answer.caCertChain
    expect(others).toEqual([])
    const roots = (await published()).x509Authorities.map(({ asn1 }) => asn1)
    expect(answer.x509Authorities).toEqual(roots)
    const authority = parseCertificate(intermediate)
    expect(authority).toMatchObject({ isCa: true, pathLength: 0 })
    expect(authority.names).toEqual([{ kind: 'uri', value: 'spiffe://example.org' }])
    const now = Date.now()
    const leafKeys = newKeys()
    const tbsFields = {
      serial: Buffer.alloc(16, 0x41),
      issuer: authority.subject,
      authorityKeyId: keyIdOf(authority.publicKey),
      subjectKeyId: keyIdOf(leafKeys.publicKey.export({ format: 'der', type: 'spki' })),
      spiffeId: parseSpiffeId('spiffe://example.org/deep'),
      dnsNames: [],
      notBefore: authority.notBefore,
      notAfter: authority.notAfter,
      publicKey: new Uint8Array(leafKeys.publicKey.export({ format: 'der', type: 'spki' })),
    }
    const leaf = signedLeafBy(tbsFields, keys.privateKey)
    const bundles = bundleSourceOf(bundleOf(trustDomain, roots))
    expect(verifySvid([leaf, intermediate], bundles, { now }).id).toBe('spiffe://example.org/deep')
    if (!hasOpenssl()) return
    const [verdict] = opensslVerify([{ chain: [leaf, intermediate], roots }], now)
    expect(verdict).toMatchObject({ verdict: 'accept' })
  })

  it('is refused to everybody whose entry is not marked, and for a CSR by another key', async () => {
    const csr = makeCsr(newKeys())
    for (const caller of [stranger, ca.local]) {
      expect(await denialOf(caller.client(SVID).newDownstreamX509CA({ csr }))).toMatchObject({
        code: 'PermissionDenied',
      })
    }
    const forged = Buffer.from(csr)
    forged[forged.length - 1] = (forged.at(-1) ?? 0) ^ 1
    expect(await denialOf(below.client(SVID).newDownstreamX509CA({ csr: forged }))).toMatchObject({
      code: 'InvalidArgument',
    })
  })

  it('lives as long as it asks, a week at most, and never longer than ours', async () => {
    const lifeOf = async (preferredTtl: number) => {
      const answer = await below
        .client(SVID)
        .newDownstreamX509CA({ csr: makeCsr(newKeys()), preferredTtl })
      const [der = new Uint8Array()] = answer.caCertChain
      return parseCertificate(der).notAfter
    }
    const now = Date.now()
    expect(await lifeOf(3600)).toBeLessThan(now + 3_700_000)
    expect(await lifeOf(0)).toBeLessThan(now + 86_500_000)
    const [root] = (await published()).x509Authorities
    const { notAfter } = parseCertificate(root?.asn1 ?? new Uint8Array())
    expect(await lifeOf(2 ** 30)).toBeLessThanOrEqual(notAfter)
  })

  it('signs for workloads, never for an agent or an administrator of ours', async () => {
    const agent = await ca.join()
    const keys = newKeys()
    const { caCertChain } = await below.client(SVID).newDownstreamX509CA({ csr: makeCsr(keys) })
    const [intermediate = new Uint8Array()] = caCertChain
    const authority = parseCertificate(intermediate)
    const own = parseCertificate(agent.chain[0] ?? new Uint8Array())
    const forgedKeys = newKeys()
    const spki = new Uint8Array(forgedKeys.publicKey.export({ format: 'der', type: 'spki' }))
    const forged = signedLeafBy(
      {
        serial: Buffer.from(own.serial, 'hex'),
        issuer: authority.subject,
        authorityKeyId: keyIdOf(authority.publicKey),
        subjectKeyId: keyIdOf(spki),
        spiffeId: agent.id,
        dnsNames: [],
        notBefore: authority.notBefore,
        notAfter: authority.notAfter,
        publicKey: spki,
      },
      keys.privateKey,
    )
    using pretender = ca.remote({ chain: [forged, intermediate], keys: forgedKeys })
    const csr = makeCsr(newKeys())
    expect(await denialOf(pretender.client(SVID).batchNewX509SVID({ params: [] }))).toMatchObject({
      code: 'PermissionDenied',
    })
    expect(await denialOf(pretender.client(Agent).renewAgent({ params: { csr } }))).toMatchObject({
      code: 'PermissionDenied',
    })
  })

  it('can be denied by its key: what it signed is believed no more', async () => {
    const keys = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
    await below.client(SVID).newDownstreamX509CA({ csr: makeCsr(keys) })
    const authorityId = keyIdOf(
      new Uint8Array(keys.publicKey.export({ format: 'der', type: 'spki' })),
    ).toString('hex')
    const rule = { target: { case: 'authorityId', value: authorityId }, reason: 'stolen' } as const
    const added = await ca.local.client(DenyRules).addRule({ rule })
    expect([added.target.value, added.root]).toEqual([authorityId, false])
  })
})

describe('keys of others', () => {
  const publicKey = new Uint8Array(newKeys().publicKey.export({ format: 'der', type: 'spki' }))

  it('of an authority below this one join the bundle, once each', async () => {
    const key = { keyId: 'below-1', publicKey, expiresAt: 4_000_000_000n }
    for (const _ of [1, 2]) {
      const { jwtAuthorities } = await below
        .client(Bundle)
        .publishJWTAuthority({ jwtAuthority: key })
      expect(jwtAuthorities.filter(({ keyId }) => keyId === 'below-1')).toMatchObject([key])
    }
    expect((await published()).jwtAuthorities.map(({ keyId }) => keyId)).toContain('below-1')
    const wit = await below.client(Bundle).publishWITAuthority({ witAuthority: key })
    expect(wit.witAuthorities).toHaveLength(2)
  })

  it('never take the name of another key, nor come from a stranger', async () => {
    const { jwtAuthorities } = await published()
    const keyId = jwtAuthorities[0]?.keyId ?? ''
    const jwtAuthority = { keyId, publicKey, expiresAt: 0n }
    expect(
      await denialOf(below.client(Bundle).publishJWTAuthority({ jwtAuthority })),
    ).toMatchObject({ code: 'AlreadyExists' })
    expect(
      await denialOf(stranger.client(Bundle).publishJWTAuthority({ jwtAuthority })),
    ).toMatchObject({ code: 'PermissionDenied' })
    expect((await published()).jwtAuthorities).toEqual(jwtAuthorities)
  })

  it('never take the place of an authority of another kind that has the same id', async () => {
    const { x509Authorities } = await published()
    const root = parseCertificate(x509Authorities[0]?.asn1 ?? new Uint8Array())
    const keyId = keyIdOf(root.publicKey).toString('hex')
    const key = { keyId, publicKey, expiresAt: 4_000_000_000n }
    await below.client(Bundle).publishJWTAuthority({ jwtAuthority: key })
    const { active } = await ca.local.client(LocalAuthority).getX509AuthorityState({})
    expect(active?.authorityId).toBe(keyId)
    expect((await published()).x509Authorities).toEqual(x509Authorities)
    await ca.local.client(LocalAuthority).prepareX509Authority({})
    expect((await published()).x509Authorities).toHaveLength(2)
    await expect(
      below.client(SVID).newDownstreamX509CA({ csr: makeCsr(newKeys()) }),
    ).resolves.toBeDefined()
  })

  it('of one authority are sixteen at most, and end before the year 9999', async () => {
    const publish = (keyId: string, expiresAt: bigint) =>
      below.client(Bundle).publishWITAuthority({ witAuthority: { keyId, publicKey, expiresAt } })
    for (const expiresAt of [-1n, 2n ** 62n]) {
      expect(await denialOf(publish('odd', expiresAt))).toMatchObject({ code: 'InvalidArgument' })
    }
    const codes: unknown[] = []
    for (let i = 0; i < 20; i++) codes.push((await denialOf(publish(`many-${i}`, 0n)))?.code)
    expect(codes.filter((code) => code === 'FailedPrecondition').length).toBeGreaterThanOrEqual(4)
    expect((await published()).witAuthorities.length).toBeLessThanOrEqual(17)
  })

  it('are appended by an operator, believed, and tainted and revoked like our own', async () => {
    const now = Date.now()
    const made = { trustDomain, notBefore: now - 1000, notAfter: now + 3_600_000 }
    const { certificate: asn1 } = await createAuthority(made)
    const bundle = await ca.local.client(Bundle).appendBundle({ x509Authorities: [{ asn1 }] })
    expect(bundle.x509Authorities).toHaveLength(3)
    const authorityId = keyIdOf(parseCertificate(asn1).publicKey).toString('hex')
    const operator = ca.local.client(LocalAuthority)
    await operator.taintX509Authority({ authorityId })
    const tainted = (await published()).x509Authorities.map((it) => it.tainted)
    expect(tainted.filter((it) => it)).toHaveLength(1)
    await operator.revokeX509Authority({ authorityId })
    expect((await published()).x509Authorities).toHaveLength(2)
  })

  it('of another trust domain are refused: they are federated bundles', async () => {
    const now = Date.now()
    const made = { trustDomain: 'other.test', notBefore: now - 1000, notAfter: now + 3_600_000 }
    const { certificate: asn1 } = await createAuthority(made)
    expect(
      await denialOf(ca.local.client(Bundle).appendBundle({ x509Authorities: [{ asn1 }] })),
    ).toMatchObject({
      code: 'InvalidArgument',
      message: expect.stringContaining('is of spiffe://other.test, not of spiffe://example.org'),
    })
  })
})
