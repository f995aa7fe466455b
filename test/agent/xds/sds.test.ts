// SDS over a real socket: which names give what to whom, in which form, and what a person is told.
import { createPublicKey } from 'node:crypto'
import { createClient } from '@connectrpc/connect'
import { describe, expect, it } from 'vitest'
import { signCrl } from '../../../ca/crl.ts'
import type { DevCa } from '../../../certs-dev/authority.ts'
import { SecretDiscoveryService } from '../../../proto/gen/envoy/service/secret/v3/sds_pb.js'
import { bundleOfPem, bundleSourceOf } from '../../../spiffe/bundle.ts'
import { parseCertificate } from '../../../spiffe/certificate.ts'
import { keyIdOf } from '../../../spiffe/key-id.ts'
import { parsePem } from '../../../spiffe/pem.ts'
import { verifySvid } from '../../../spiffe/svid.ts'
import { denialOf } from '../../support/ca-client.ts'
import { createFakeClock } from '../../support/fake-clock.ts'
import {
  deltaSecrets,
  domainsOf,
  keyPairOf,
  plainOf,
  secretOf,
  streamSecrets,
  typeUrl,
} from './sds-client.ts'
import {
  bundleOf,
  entryOf,
  makeRoot,
  type SdsServer,
  startSds,
  svidOf,
  trustDomain,
} from './sds-server.ts'

const root = makeRoot('ours')
const theirs = makeRoot('theirs')
const web = 'spiffe://example.org/web'
const batch = 'spiffe://example.org/batch'

/** What an agent of two identities is told, the first of which federates. */
const told = {
  snapshot: true,
  bundle: bundleOf(trustDomain, root),
  entries: [entryOf('/batch', 2), entryOf('/web', 1, ['partner.test'])],
  federated: { bundles: [bundleOf('partner.test', theirs), bundleOf('stranger.test', theirs)] },
}

/** Issuing two SVIDs costs little; one server for each test keeps them apart. */
async function start(...[sds, clock]: Parameters<typeof startSds>): Promise<SdsServer> {
  const server = await startSds(sds, clock)
  server.apply(told)
  server.put(svidOf(root, '/web'), svidOf(root, '/batch'))
  return server
}

const fetchSecrets = ({ transport }: SdsServer, resourceNames: string[], metadata = {}) =>
  createClient(SecretDiscoveryService, transport).fetchSecrets({
    typeUrl,
    resourceNames,
    node: { id: 'test', metadata },
  })

async function secrets(server: SdsServer, names: string[], metadata = {}) {
  const { resources } = await fetchSecrets(server, names, metadata)
  const found = resources.map(secretOf)
  return new Map(found.map((secret) => [secret.name, secret]))
}

function one<T>(map: ReadonlyMap<string, T>, name: string): T {
  const found = map.get(name)
  if (found === undefined) throw new Error(`no ${name} among ${[...map.keys()]}`)
  return found
}

const pemOf = ({ certificate }: DevCa) => [certificate.toString('base64')]
const dersOf = (pem: string) =>
  parsePem(pem, 'CERTIFICATE', 'test').map((it) => it.toString('base64'))

function crlOf(ca: DevCa, now: number) {
  const fields = {
    issuer: ca.subject,
    authorityKeyId: keyIdOf(parseCertificate(ca.certificate).publicKey),
    number: 1,
    thisUpdate: now - 60_000,
    nextUpdate: now + 3_600_000,
    revoked: [],
  }
  return signCrl(fields, ca.privateKey)
}

describe('names', () => {
  it('any mix of them in one request, each secret under the name that it was asked by', async () => {
    await using server = await start()
    const names = [
      'default',
      'ROOTCA',
      'ALL',
      web,
      batch,
      'spiffe://example.org',
      'spiffe://partner.test',
    ]
    const all = await secrets(server, [...names, ''])
    expect([...all.keys()]).toEqual(names)
    const own = { 'example.org': pemOf(root) }
    const partner = { 'partner.test': pemOf(theirs) }
    const domains = (name: string) =>
      Object.fromEntries(
        Object.entries(domainsOf(one(all, name))).map(([domain, pem]) => [domain, dersOf(pem)]),
      )
    expect(domains('ROOTCA')).toEqual(own)
    expect(domains('spiffe://example.org')).toEqual(own)
    expect(domains('spiffe://partner.test')).toEqual(partner)
    expect(domains('ALL')).toEqual({ ...own, ...partner })
    const bundle = bundleOfPem(
      trustDomain,
      domainsOf(one(all, 'ROOTCA'))[trustDomain] ?? '',
      'test',
    )
    // the oldest entry is the default identity
    for (const [name, id] of [
      ['default', web],
      [web, web],
      [batch, batch],
    ] as const) {
      const { chain, key } = keyPairOf(one(all, name))
      const { leaf, ...verified } = verifySvid(chain, bundleSourceOf(bundle), { now: Date.now() })
      expect(verified.id).toBe(id)
      const spki = { key: Buffer.from(leaf.publicKey), format: 'der', type: 'spki' } as const
      expect(createPublicKey(key).equals(createPublicKey(spki))).toBe(true)
    }
  })

  it('no names, and a star, are everything by its own name', async () => {
    await using server = await start()
    const names = [web, batch, 'spiffe://example.org', 'spiffe://partner.test']
    for (const asked of [[], [''], ['*']])
      expect([...(await secrets(server, asked)).keys()]).toEqual(names)
  })

  it('can be others by configuration', async () => {
    const named = {
      defaultSvidName: 'mine',
      defaultBundleName: 'ours',
      defaultAllBundlesName: 'all',
    }
    await using server = await start(named)
    expect([...(await secrets(server, ['mine', 'ours', 'all'])).keys()]).toHaveLength(3)
    expect((await denialOf(fetchSecrets(server, ['default'])))?.code).toBe('PermissionDenied')
    await expect(startSds({ defaultSvidName: 'ALL' })).rejects.toThrow('have to differ')
    await expect(startSds({ defaultSvidName: 'spiffe://example.org' })).rejects.toThrow('SPIFFE ID')
  })

  it('what no entry gives is refused, and whom nothing is given', async () => {
    await using server = await start()
    const asked = ['default', 'spiffe://example.org/admin', 'spiffe://stranger.test', 'other']
    expect(await denialOf(fetchSecrets(server, asked))).toEqual({
      code: 'PermissionDenied',
      message:
        'workload is not authorized for the requested identities ' +
        '["other" "spiffe://example.org/admin" "spiffe://stranger.test"]: ' +
        'no entry gives it to this process',
    })
    server.apply({ deletedEntries: ['/web', '/batch'] })
    const refused = { code: 'PermissionDenied', message: 'no identity issued' }
    expect(await denialOf(fetchSecrets(server, ['ROOTCA']))).toEqual(refused)
    using stream = streamSecrets(server.transport)
    stream.send({ typeUrl, node: { id: 'spiffe://example.org/web' }, resourceNames: ['default'] })
    expect(await denialOf(stream.next())).toEqual(refused)
  })

  it('other types are refused; nothing is answered before the authority was heard', async () => {
    await using server = await startSds()
    using early = deltaSecrets(server.transport)
    early.send({ typeUrl })
    expect((await denialOf(early.next()))?.code).toBe('Unavailable')
    server.apply(told)
    using stream = streamSecrets(server.transport)
    stream.send({ typeUrl: 'type.googleapis.com/envoy.config.cluster.v3.Cluster' })
    expect(await denialOf(stream.next())).toMatchObject({
      code: 'InvalidArgument',
      message: 'type_url: there are only secrets here',
    })
  })
})

describe('validation contexts', () => {
  it('are a plain CA where the proxy or agent.yaml asks for that', async () => {
    await using server = await start()
    for (const asked of [true, 'true', 'True', '1']) {
      const all = await secrets(server, ['ROOTCA', 'spiffe://partner.test'], {
        disable_spiffe_cert_validation: asked,
      })
      expect(dersOf(plainOf(one(all, 'ROOTCA')).ca)).toEqual(pemOf(root))
      expect(dersOf(plainOf(one(all, 'spiffe://partner.test')).ca)).toEqual(pemOf(theirs))
    }
    for (const asked of [false, 'no', 1]) {
      const all = await secrets(server, ['ROOTCA'], { disable_spiffe_cert_validation: asked })
      expect(Object.keys(domainsOf(one(all, 'ROOTCA')))).toEqual(['example.org'])
    }
    await using plain = await start({ plainCa: true })
    expect(plainOf(one(await secrets(plain, ['ROOTCA']), 'ROOTCA')).crl).toBe('')
  })

  it('several trust domains are never one pool of CAs', async () => {
    await using server = await start({ plainCa: true })
    expect(await denialOf(fetchSecrets(server, ['ALL']))).toEqual({
      code: 'PermissionDenied',
      message:
        'workload is not authorized for the requested identities ["ALL"]: ' +
        'a plain list of CAs cannot keep trust domains apart',
    })
    server.apply({ federated: { bundles: [] } })
    expect(dersOf(plainOf(one(await secrets(server, ['ALL']), 'ALL')).ca)).toEqual(pemOf(root))
  })

  it('hold the lists of all their CAs, or none: an issuer without a list would be believed no more', async () => {
    const clock = createFakeClock(Date.now())
    await using server = await start({}, clock)
    const next = makeRoot('next')
    const lists = [root, next].map((it) => crlOf(it, clock.now()))
    const two = bundleOf(trustDomain, root, next)
    const plain = { disable_spiffe_cert_validation: true }
    const blocks = async () => {
      const shown = plainOf(one(await secrets(server, ['ROOTCA'], plain), 'ROOTCA'))
      const inside = domainsOf(one(await secrets(server, ['ROOTCA']), 'ROOTCA'))[trustDomain] ?? ''
      const count = (text: string) => text.split('BEGIN X509 CRL').length - 1
      expect(shown.isLeafOnly).toBe(count(shown.crl) > 0)
      expect(count(inside)).toBe(count(shown.crl))
      return count(inside)
    }
    server.apply({ bundle: two, revocation: { crls: lists.slice(0, 1) } })
    expect(await blocks()).toBe(0)
    expect(server.lines.map(({ msg, problem }) => [msg, problem])).toEqual([
      ['proxies get no CRLs', '1 of 2 are missing'],
    ])
    server.apply({ revocation: { crls: [...lists, crlOf(theirs, clock.now())] } })
    expect(await blocks()).toBe(2)
    using stream = streamSecrets(server.transport)
    stream.send({ typeUrl, resourceNames: ['ROOTCA'] })
    const { versionInfo } = await stream.next()
    // a list that is over would make Envoy refuse everybody
    await clock.advance(3_600_001)
    expect((await stream.next()).versionInfo).not.toBe(versionInfo)
    expect(await blocks()).toBe(0)
    server.apply({ revocation: { crls: [Buffer.of(1)] } })
    expect(await blocks()).toBe(0)
  })
})

describe('pairs', () => {
  it('a key that is not that of its certificate is not handed out, and an operator is told', async () => {
    await using server = await start()
    server.put(svidOf(root, '/web', true))
    using stream = streamSecrets(server.transport)
    stream.send({ typeUrl, resourceNames: ['default', 'ROOTCA'] })
    const { resources } = await stream.next()
    expect(resources.map(secretOf).map(({ name }) => name)).toEqual(['ROOTCA'])
    expect(server.lines.map(({ msg }) => msg)).toEqual(['the key is not that of the SVID'])
    server.put(svidOf(root, '/web'))
    const healed = (await stream.next()).resources.map(secretOf)
    expect(healed.map(({ name }) => name)).toEqual(['default', 'ROOTCA'])
  })

  it('an SVID that is made once it is asked for is asked for by its names only, and comes later', async () => {
    await using server = await startSds()
    server.apply(told)
    using stream = deltaSecrets(server.transport)
    stream.send({ typeUrl, resourceNamesSubscribe: [batch, 'spiffe://example.org', 'default'] })
    const first = await stream.next()
    expect(first.resources.map(({ name }) => name)).toEqual(['spiffe://example.org'])
    expect(first.removedResources).toEqual([])
    expect([...server.wanted]).toEqual(['/batch', '/web'])
    const answer = fetchSecrets(server, [batch])
    server.put(svidOf(root, '/batch'))
    expect((await stream.next()).resources.map(({ name }) => name)).toEqual([batch])
    expect((await answer).resources).toHaveLength(1)
    // another identity never stands in for the default one
    server.put(svidOf(root, '/web'))
    expect((await stream.next()).resources.map(({ name }) => name)).toEqual(['default'])
    server.drop('/web')
    server.apply({ entries: [entryOf('/late', 3)] })
    stream.send({ resourceNamesSubscribe: ['spiffe://example.org/other'] })
    expect(await stream.next()).toMatchObject({
      resources: [],
      removedResources: ['spiffe://example.org/other'],
    })
  })
})

describe('what a person is told', () => {
  it('a refusal with its reason; a name that is not for the caller, once', async () => {
    await using server = await start()
    using stream = streamSecrets(server.transport)
    const resourceNames = ['default', 'spiffe://example.org/late']
    stream.send({ typeUrl, node: { id: 'sidecar~7' }, resourceNames })
    const { nonce, versionInfo, resources } = await stream.next()
    expect(resources.map(secretOf).map(({ name }) => name)).toEqual(['default'])
    const errorDetail = { code: 13, message: 'x'.repeat(600) }
    const names = [...resourceNames, 'ROOTCA']
    stream.send({ typeUrl, resourceNames: names, responseNonce: nonce, versionInfo, errorDetail })
    await stream.next()
    server.apply({ entries: [entryOf('/late', 3)] })
    server.put(svidOf(root, '/late'))
    const { resources: later } = await stream.next()
    expect(later.map(secretOf).map(({ name }) => name)).toEqual([...resourceNames, 'ROOTCA'])
    const lines = server.lines.map(({ level, msg, pid, nodeId, reason, names: all }) => {
      return { level, msg, pid, nodeId, reason, names: all }
    })
    const who = { level: 'warn', pid: process.pid, nodeId: 'sidecar~7' }
    expect(lines).toEqual([
      {
        ...who,
        msg: 'a proxy asks for secrets that are not for it',
        names: ['spiffe://example.org/late: no entry gives it to this process'],
      },
      { ...who, msg: 'a proxy refused its secrets', reason: 'x'.repeat(500) },
    ])
  })
})
