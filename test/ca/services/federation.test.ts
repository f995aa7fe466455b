// Bundles of other trust domains and relationships with them, over the wire.
import { beforeAll, describe, expect, it } from 'vitest'
import { createAuthority } from '../../../ca/x509.ts'
import {
  Bundle,
  BatchDeleteFederatedBundleRequest_Mode as Mode,
} from '../../../proto/gen/spire/api/server/bundle/v1/bundle_pb.js'
import { Entry } from '../../../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import { TrustDomain } from '../../../proto/gen/spire/api/server/trustdomain/v1/trustdomain_pb.js'
import { denialOf, newKeys } from '../../support/ca-client.ts'
import { sharedCa } from '../../support/shared-ca.ts'

const ca = sharedCa()
let root: Uint8Array
beforeAll(async () => {
  const now = Date.now()
  const made = { trustDomain: 'other.test', notBefore: now, notAfter: now + 3_600_000 }
  root = (await createAuthority(made)).certificate
})

const bundles = () => ca.local.client(Bundle)
const relations = () => ca.local.client(TrustDomain)
const publicKey = new Uint8Array(newKeys().publicKey.export({ format: 'der', type: 'spki' }))
const bundleOf = (trustDomain: string, more = {}) => ({
  trustDomain,
  x509Authorities: [{ asn1: root, tainted: false }],
  jwtAuthorities: [{ keyId: 'k1', publicKey, expiresAt: 4_000_000_000n, tainted: true }],
  refreshHint: 300n,
  sequenceNumber: 2n ** 60n + 1n,
  ...more,
})
const codes = (results: readonly { readonly status?: { readonly code: number } | undefined }[]) =>
  results.map(({ status }) => status?.code)
const messages = (
  results: readonly { readonly status?: { readonly message: string } | undefined }[],
) => results.map(({ status }) => status?.message)

describe('federated bundles', () => {
  it('are created once, come back as they were given, and are counted with our own', async () => {
    const given = bundleOf('a.test')
    const { results } = await bundles().batchCreateFederatedBundle({
      bundle: [given, given, bundleOf('spiffe://b.test')],
    })
    expect(codes(results)).toEqual([0, 6, 0])
    const found = await bundles().getFederatedBundle({ trustDomain: 'spiffe://a.test' })
    expect(found).toMatchObject(given)
    expect(await bundles().countBundles({})).toMatchObject({ count: 3 })
    const { bundles: all } = await bundles().listFederatedBundles({
      outputMask: { refreshHint: true },
    })
    expect(all.map(({ trustDomain }) => trustDomain)).toEqual(['a.test', 'b.test'])
    expect(all[0]).toMatchObject({ refreshHint: 300n, x509Authorities: [], sequenceNumber: 0n })
  })

  it('are paged by name', async () => {
    const first = await bundles().listFederatedBundles({ pageSize: 1 })
    const pageToken = first.nextPageToken
    const second = await bundles().listFederatedBundles({ pageSize: 1, pageToken })
    const names = [...first.bundles, ...second.bundles].map(({ trustDomain }) => trustDomain)
    expect(names).toEqual(['a.test', 'b.test'])
    expect(second.nextPageToken).toBe('')
  })

  it('are updated by mask, and set whether they are there or not', async () => {
    const changed = bundleOf('a.test', { refreshHint: 60n, jwtAuthorities: [] })
    const inputMask = { refreshHint: true }
    const updated = await bundles().batchUpdateFederatedBundle({ bundle: [changed], inputMask })
    expect(updated.results[0]?.bundle).toMatchObject({
      refreshHint: 60n,
      jwtAuthorities: [{ keyId: 'k1' }],
    })
    const missing = await bundles().batchUpdateFederatedBundle({ bundle: [bundleOf('c.test')] })
    expect(codes(missing.results)).toEqual([5])
    const set = await bundles().batchSetFederatedBundle({ bundle: [changed, bundleOf('c.test')] })
    expect(codes(set.results)).toEqual([0, 0])
    const { jwtAuthorities } = await bundles().getFederatedBundle({ trustDomain: 'a.test' })
    expect(jwtAuthorities).toEqual([])
  })

  it('with something wrong are refused with the field, and nothing of them is kept', async () => {
    const { results } = await bundles().batchCreateFederatedBundle({
      bundle: [
        bundleOf('example.org'),
        bundleOf('UPPER.test'),
        bundleOf('x.test', { x509Authorities: [{ asn1: new Uint8Array([1, 2]) }] }),
        bundleOf('x.test', { jwtAuthorities: [{ keyId: '', publicKey }] }),
        bundleOf('x.test', { jwtAuthorities: [{ keyId: 'k', publicKey: new Uint8Array([1]) }] }),
        bundleOf('x.test', { refreshHint: -1n }),
        bundleOf('x.test', { x509Authorities: Array.from({ length: 65 }, () => ({ asn1: root })) }),
      ],
    })
    expect(new Set(codes(results))).toEqual(new Set([3]))
    expect(messages(results)).toEqual([
      'bundle[0].trust_domain: example.org is our own trust domain',
      expect.stringContaining('bundle[1].trust_domain: '),
      expect.stringContaining('bundle[2].x509_authorities[0].asn1: '),
      'bundle[3].jwt_authorities[0].key_id: is not 1 to 255 characters',
      expect.stringContaining('bundle[4].jwt_authorities[0].public_key: '),
      'bundle[5].refresh_hint: is negative',
      'bundle[6].x509_authorities: more than 64 keys',
    ])
    const lost = bundles().getFederatedBundle({ trustDomain: 'x.test' })
    expect(await denialOf(lost)).toEqual({
      code: 'NotFound',
      message: 'no bundle of trust domain x.test',
    })
  })

  it('are deleted by one of three modes for the entries that federate with them', async () => {
    const entry = (id: string) => ({
      id,
      spiffeId: { trustDomain: 'example.org', path: `/${id}` },
      parentId: { trustDomain: 'example.org', path: '/spire/agent/x' },
      selectors: [{ type: 'unix', value: 'uid:1' }],
      federatesWith: ['a.test', 'b.test'],
    })
    await ca.local.client(Entry).batchCreateEntry({ entries: [entry('one')] })
    const remove = async (trustDomain: string, mode: Mode) =>
      (await bundles().batchDeleteFederatedBundle({ trustDomains: [trustDomain], mode })).results
    const restricted = await remove('a.test', Mode.RESTRICT)
    expect(restricted).toMatchObject([{ trustDomain: 'a.test', status: { code: 9 } }])
    expect(restricted[0]?.status?.message).toContain('1 entries federate with a.test')
    expect(codes(await remove('a.test', Mode.DISSOCIATE))).toEqual([0])
    const left = await ca.local.client(Entry).getEntry({ id: 'one' })
    expect(left).toMatchObject({ federatesWith: ['b.test'], revisionNumber: 1n })
    expect(codes(await remove('b.test', Mode.DELETE))).toEqual([0])
    expect(await denialOf(ca.local.client(Entry).getEntry({ id: 'one' }))).toMatchObject({
      code: 'NotFound',
    })
    expect(codes(await remove('b.test', Mode.RESTRICT))).toEqual([5])
    expect(await denialOf(remove('c.test', 7 as Mode))).toMatchObject({ code: 'InvalidArgument' })
  })

  it('FE-5 that an operator sets take the place of stored ones', async () => {
    const set = (bundle: ReturnType<typeof bundleOf>) =>
      bundles().batchSetFederatedBundle({ bundle: [bundle] })
    await set(bundleOf('replaced.test'))
    await set(bundleOf('replaced.test', { refreshHint: 60n, jwtAuthorities: [] }))
    const stored = await bundles().getFederatedBundle({ trustDomain: 'replaced.test' })
    expect(stored).toMatchObject({ refreshHint: 60n, jwtAuthorities: [] })
    await bundles().batchDeleteFederatedBundle({ trustDomains: ['replaced.test'] })
  })

  it('are never a way to put keys of another trust domain into our own bundle', async () => {
    const x509Authorities = [{ asn1: root }]
    expect(await denialOf(bundles().appendBundle({ x509Authorities }))).toMatchObject({
      code: 'InvalidArgument',
    })
  })
})

describe('federation relationships', () => {
  const spiffe = {
    trustDomain: 'd.test',
    bundleEndpointUrl: 'https://d.test:8443/bundle',
    bundleEndpointProfile: {
      case: 'httpsSpiffe' as const,
      value: { endpointSpiffeId: 'spiffe://d.test/endpoint' },
    },
  }

  it('are kept with the bundle that came with them, and updated by mask', async () => {
    const created = await relations().batchCreateFederationRelationship({
      federationRelationships: [{ ...spiffe, trustDomainBundle: bundleOf('d.test') }],
    })
    expect(codes(created.results)).toEqual([0])
    const found = await relations().getFederationRelationship({ trustDomain: 'd.test' })
    expect(found).toMatchObject({ ...spiffe, trustDomainBundle: { trustDomain: 'd.test' } })
    const updated = await relations().batchUpdateFederationRelationship({
      federationRelationships: [{ trustDomain: 'd.test', bundleEndpointUrl: 'https://e.test/' }],
      inputMask: { bundleEndpointUrl: true },
    })
    expect(updated.results[0]?.federationRelationship).toMatchObject({
      bundleEndpointUrl: 'https://e.test/',
      bundleEndpointProfile: spiffe.bundleEndpointProfile,
    })
    const { federationRelationships } = await relations().listFederationRelationships({})
    expect(federationRelationships).toHaveLength(1)
  })

  it('FE-9 FE-11 with something wrong leave neither a relationship nor a bundle', async () => {
    const web = { bundleEndpointProfile: { case: 'httpsWeb' as const, value: {} } }
    const url = 'https://f.test/'
    const { results } = await relations().batchCreateFederationRelationship({
      federationRelationships: [
        { trustDomain: 'f.test', bundleEndpointUrl: 'http://f.test/', ...web },
        { trustDomain: 'f.test', bundleEndpointUrl: 'https://me:secret@f.test/', ...web },
        { trustDomain: 'f.test', bundleEndpointUrl: url },
        {
          trustDomain: 'f.test',
          bundleEndpointUrl: url,
          ...web,
          trustDomainBundle: bundleOf('g.test'),
        },
      ],
    })
    expect(messages(results)).toEqual([
      'federation_relationships[0].bundle_endpoint_url: is no https URL with a host and without user',
      'federation_relationships[1].bundle_endpoint_url: is no https URL with a host and without user',
      'federation_relationships[2].bundle_endpoint_profile: is missing: https_web or https_spiffe',
      'federation_relationships[3].trust_domain_bundle: is of g.test, not of f.test',
    ])
    for (const trustDomain of ['f.test', 'g.test']) {
      expect(await denialOf(bundles().getFederatedBundle({ trustDomain }))).toMatchObject({
        code: 'NotFound',
      })
    }
  })

  it('are deleted once', async () => {
    const remove = async () =>
      (await relations().batchDeleteFederationRelationship({ trustDomains: ['d.test'] })).results
    expect(codes(await remove())).toEqual([0])
    expect(await remove()).toMatchObject([{ trustDomain: 'd.test', status: { code: 5 } }])
  })
})
