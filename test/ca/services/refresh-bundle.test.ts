// RefreshBundle of a running authority, against real bundle endpoints.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { Bundle } from '../../../proto/gen/spire/api/server/bundle/v1/bundle_pb.js'
import { TrustDomain } from '../../../proto/gen/spire/api/server/trustdomain/v1/trustdomain_pb.js'
import {
  type Endpoint,
  type ForeignDomain,
  foreignDomain,
  startEndpoint,
} from '../../support/bundle-endpoint.ts'
import { denialOf } from '../../support/ca-client.ts'
import { testFolder } from '../../support/folder.ts'
import { sharedCa } from '../../support/shared-ca.ts'
import { makeTestTls, type TestTls } from '../../support/test-tls.ts'

const id = 'spiffe://other.test/spire/server'
const all = new AsyncDisposableStack()
let web: TestTls
const ca = sharedCa(async () => {
  const roots = join(all.use(testFolder()).path, 'roots.pem')
  web = await makeTestTls()
  writeFileSync(roots, web.ca)
  return { config: `federation: { privateAddresses: true, roots: ${roots} }` }
})
let domain: ForeignDomain
let endpoint: Endpoint
beforeAll(async () => {
  domain = foreignDomain('other.test')
  endpoint = all.use(await startEndpoint(domain.credential(id), domain.document()))
  await relate({
    trustDomain: 'other.test',
    bundleEndpointUrl: endpoint.url,
    bundleEndpointProfile: { case: 'httpsSpiffe', value: { endpointSpiffeId: id } },
    trustDomainBundle: { trustDomain: 'other.test', x509Authorities: [{ asn1: domain.root }] },
  })
})
afterAll(() => all.disposeAsync())

const relations = () => ca.local.client(TrustDomain)

type Creation = Parameters<ReturnType<typeof relations>['batchCreateFederationRelationship']>[0]
type Relationship = NonNullable<Creation['federationRelationships']>[number]

async function relate(relationship: Relationship): Promise<void> {
  const federationRelationships = [relationship]
  const created = await relations().batchCreateFederationRelationship({ federationRelationships })
  expect(created.results).toMatchObject([{ status: { code: 0 } }])
}

const refresh = (trustDomain = 'other.test') => relations().refreshBundle({ trustDomain })
const stored = (trustDomain = 'other.test') =>
  ca.local.client(Bundle).getFederatedBundle({ trustDomain })

it('FE-7 FE-22 brings the bundle as its endpoint has it now', async () => {
  await refresh()
  expect(await stored()).toMatchObject({ sequenceNumber: 1n })
  const x509 = [domain.root, foreignDomain('other.test').root]
  endpoint.says(domain.document({ x509, sequence: 2n ** 63n, refreshHint: 600 }))
  await refresh('spiffe://other.test')
  const { sequenceNumber, refreshHint, x509Authorities } = await stored()
  expect([sequenceNumber, refreshHint, x509Authorities.length]).toEqual([2n ** 63n, 600n, 2])
})

it('FE-7 FE-18 by Web PKI as well, within what ca.yaml says of it', async () => {
  const published = foreignDomain('web.test')
  const page = all.use(await startEndpoint(web, published.document(), 'localhost'))
  await relate({
    trustDomain: 'web.test',
    bundleEndpointUrl: page.url,
    bundleEndpointProfile: { case: 'httpsWeb', value: {} },
  })
  await refresh('web.test')
  expect(await stored('web.test')).toMatchObject({ trustDomain: 'web.test', sequenceNumber: 1n })
})

it('says why it cannot; what was fetched before stays', async () => {
  const before = await stored()
  await endpoint.goesAway()
  expect(await denialOf(refresh())).toEqual({
    code: 'Unavailable',
    message: expect.stringMatching(/^cannot fetch https:.*ECONNREFUSED/),
  })
  await endpoint.comesBack()
  endpoint.says(domain.document({ sequence: 1n }))
  expect(await denialOf(refresh())).toEqual({
    code: 'FailedPrecondition',
    message: expect.stringContaining('sequence 1 is before 9223372036854775808'),
  })
  expect(await stored()).toEqual(before)
})

it('is for relationships only', async () => {
  expect(await denialOf(refresh('nobody.test'))).toEqual({
    code: 'NotFound',
    message: 'no relationship with trust domain nobody.test',
  })
  expect(await denialOf(refresh('example.org'))).toMatchObject({ code: 'InvalidArgument' })
})
