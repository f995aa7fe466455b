// SDS of a real agent of a real authority: who has no entry, rotations, entries that come and go.
import { createPublicKey } from 'node:crypto'
import { createClient } from '@connectrpc/connect'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openTransport } from '../../../client/transport.ts'
import type { Secret } from '../../../proto/gen/envoy/extensions/transport_sockets/tls/v3/secret_pb.js'
import { SecretDiscoveryService } from '../../../proto/gen/envoy/service/secret/v3/sds_pb.js'
import { Entry } from '../../../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import { parseCertificate } from '../../../spiffe/certificate.ts'
import { leafIdOf } from '../../../spiffe/svid.ts'
import { denialOf } from '../../support/ca-client.ts'
import { startNode, type TestNode, trustDomain } from '../../support/node.ts'
import { deltaSecrets, keyPairOf, secretOf, streamSecrets, typeUrl } from './sds-client.ts'

const uid = `unix:uid:${process.getuid?.()}`
const web = `spiffe://${trustDomain}/web`
const domainId = `spiffe://${trustDomain}`

let node: TestNode
let local: ReturnType<typeof openTransport>
let webEntry: string

const refused = { code: 'PermissionDenied', message: 'no identity issued' }
const forget = (...ids: string[]) => createClient(Entry, node.local).batchDeleteEntry({ ids })
const fetchSecrets = (...resourceNames: string[]) =>
  createClient(SecretDiscoveryService, local.transport).fetchSecrets({ typeUrl, resourceNames })

/** The leaf of a certificate whose key is its own. */
function leafOf(secret: Secret) {
  const { chain, key } = keyPairOf(secret)
  const leaf = parseCertificate(chain[0] ?? new Uint8Array())
  const spki = { key: Buffer.from(leaf.publicKey), format: 'der', type: 'spki' } as const
  expect(createPublicKey(key).equals(createPublicKey(spki))).toBe(true)
  return leaf
}

beforeAll(async () => {
  node = await startNode({ svidLifetime: '20s' })
  local = openTransport({ kind: 'unix', path: node.agent.socket })
}, 120_000)
afterAll(async () => {
  local[Symbol.dispose]()
  await node[Symbol.asyncDispose]()
})

describe('SDS of an agent', () => {
  it('who has no entry is refused, and may come again once there is one', async () => {
    expect(await denialOf(fetchSecrets())).toEqual(refused)
    using early = streamSecrets(local.transport)
    early.send({ typeUrl, resourceNames: ['default'], node: { id: web } })
    expect(await denialOf(early.next())).toEqual(refused)
    webEntry = await node.register('/web', [uid])
    while ((await denialOf(fetchSecrets('default'))) !== undefined);
    const { resources, versionInfo, nonce } = await fetchSecrets('default', web)
    expect(resources.map(secretOf).map((it) => leafIdOf(leafOf(it)))).toEqual([web, web])
    expect([versionInfo, nonce]).toEqual([expect.stringMatching(/./), ''])
  })

  it('a rotation is told to either variant once, as certificate and key together', async () => {
    using whole = streamSecrets(local.transport)
    using parts = deltaSecrets(local.transport)
    const resourceNames = ['default', 'ROOTCA']
    whole.send({ typeUrl, resourceNames })
    parts.send({ typeUrl, resourceNamesSubscribe: resourceNames })
    const first = await whole.next()
    const begun = await parts.next()
    whole.send({ resourceNames, versionInfo: first.versionInfo, responseNonce: first.nonce })
    parts.send({ responseNonce: begun.nonce })
    const second = await whole.next()
    expect(second.versionInfo).not.toBe(first.versionInfo)
    const [before, after] = [first, second].map(({ resources }) => resources.map(secretOf))
    expect(after?.map(({ name }) => name)).toEqual(resourceNames)
    expect(after?.[1]).toEqual(before?.[1])
    const serials = [before, after].map((it) => it?.[0] && leafOf(it[0]).serial)
    expect(new Set(serials).size).toBe(2)
    const changed = await parts.next()
    expect(changed.resources.map(({ name }) => name)).toEqual(['default'])
    const held = new Map([...begun.resources, ...changed.resources].map((it) => [it.name, it]))
    expect(held.get('default')?.version).not.toBe(begun.resources[0]?.version)
    expect(leafIdOf(leafOf(secretOf(held.get('default')?.resource)))).toBe(web)

    // who comes back is told of what is new to it only
    using again = deltaSecrets(local.transport)
    const initialResourceVersions = Object.fromEntries(
      [...held].map(([name, { version }]) => [name, version]),
    )
    again.send({ typeUrl, resourceNamesSubscribe: resourceNames, initialResourceVersions })
    again.send({ resourceNamesSubscribe: [domainId] })
    for (let name = ''; name !== domainId; ) {
      const { resources } = await again.next()
      for (const it of resources) expect(held.get(it.name)?.version).not.toBe(it.version)
      name = resources.at(-1)?.name ?? ''
    }
  })

  it('an entry that comes and goes: delta says removed, the other variant nothing; the last one ends both', async () => {
    const late = `spiffe://${trustDomain}/late`
    using whole = streamSecrets(local.transport)
    using parts = deltaSecrets(local.transport)
    whole.send({ typeUrl, resourceNames: [late] })
    parts.send({ typeUrl, resourceNamesSubscribe: [late] })
    expect(await parts.next()).toMatchObject({ resources: [], removedResources: [late] })
    const id = await node.register('/late', [uid])
    const appeared = await whole.next()
    expect(appeared.resources.map(secretOf).map((it) => leafIdOf(leafOf(it)))).toEqual([late])
    expect((await parts.next()).resources.map(({ name }) => name)).toEqual([late])
    await forget(id)
    // it may have been renewed before it went
    let gone = await parts.next()
    while (gone.resources.length > 0) gone = await parts.next()
    expect(gone.removedResources).toEqual([late])
    expect(await denialOf(fetchSecrets(late))).toMatchObject({ code: 'PermissionDenied' })
    await forget(webEntry)
    expect(await denialOf(parts.next())).toEqual(refused)
    const ended = await denialOf(
      (async () => {
        for (;;) await whole.next()
      })(),
    )
    expect(ended).toEqual(refused)
  })
})
