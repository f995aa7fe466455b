import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Entry } from '../../../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import { SVID } from '../../../proto/gen/spire/api/server/svid/v1/svid_pb.js'
import { parseCertificate } from '../../../spiffe/certificate.ts'
import { type Connection, denialOf, newKeys } from '../../support/ca-client.ts'
import { makeCsr, requestedNames } from '../../support/csr.ts'
import { sharedCa } from '../../support/shared-ca.ts'

const id = (path: string) => ({ trustDomain: 'example.org', path })

const ca = sharedCa()
let agent: Connection
let agentPath: string
beforeAll(async () => {
  const own = await ca.join()
  agentPath = own.id.slice('spiffe://example.org'.length)
  agent = ca.remote(own)
  await register('web', agentPath, { hint: 'front', dnsNames: ['web.example'], x509SvidTtl: 600 })
  await register('db', agentPath)
  await register('foreign', '/spire/agent/another')
})
afterAll(() => agent[Symbol.dispose]())

async function register(name: string, parent: string, more = {}): Promise<void> {
  const selectors = [{ type: 'unix', value: 'uid:1000' }]
  const entry = { id: name, spiffeId: id(`/${name}`), parentId: id(parent), selectors, ...more }
  const { results } = await ca.local.client(Entry).batchCreateEntry({ entries: [entry] })
  expect(results).toMatchObject([{ status: { code: 0, message: 'OK' } }])
}

const batch = async (...params: { entryId: string; csr: Uint8Array }[]) =>
  (await agent.client(SVID).batchNewX509SVID({ params })).results
const evil = () =>
  makeCsr(newKeys(), { attributes: [requestedNames([0x86, 'spiffe://example.org/db'])] })
const namesIn = (chain: readonly Uint8Array[] = []) =>
  chain.map((der) => parseCertificate(der).names)

describe('BatchNewX509SVID', () => {
  it('gives what the entry says, and not what the CSR asks for', async () => {
    const before = Date.now()
    const [result] = await batch({ entryId: 'web', csr: evil() })
    expect(result?.status).toMatchObject({ code: 0, message: 'OK' })
    expect(namesIn(result?.svid?.certChain), 'X5-1 one URI name, the entry’s').toEqual([
      [
        { kind: 'uri', value: 'spiffe://example.org/web' },
        { kind: 'dns', value: 'web.example' },
      ],
    ])
    expect(result?.svid).toMatchObject({ id: id('/web'), hint: 'front' })
    const life = Number(result?.svid?.expiresAt) - before / 1000
    expect(Math.abs(life - 600)).toBeLessThan(30)
  })

  it('answers in order, each item for itself', async () => {
    const bad = makeCsr(newKeys(), { signingKey: newKeys().privateKey })
    const results = await batch(
      { entryId: 'db', csr: makeCsr(newKeys()) },
      { entryId: 'foreign', csr: makeCsr(newKeys()) },
      { entryId: 'none', csr: makeCsr(newKeys()) },
      { entryId: 'web', csr: bad },
      { entryId: 'web', csr: Buffer.of() },
      { entryId: 'web', csr: makeCsr(newKeys()) },
    )
    const said = results.map(({ status, svid }) => [
      status?.code,
      svid?.id?.path ?? status?.message.replace(/agent spiffe.*$/, 'agent'),
    ])
    expect(said).toEqual([
      [0, '/db'],
      [7, 'entry foreign is not below agent'],
      [5, 'entry none not found'],
      [3, 'CSR refused: its signature is not by its own key'],
      [3, 'CSR refused: it is not well-formed DER'],
      [0, '/web'],
    ])
    for (const { status, svid } of results) expect(svid === undefined).toBe(status?.code !== 0)
  })

  it('never uses a serial twice, and records what it gave', async () => {
    const csr = makeCsr(newKeys())
    const results = await batch(...Array.from({ length: 60 }, () => ({ entryId: 'db', csr })))
    const serials = results.map(({ svid }) => parseCertificate(svid?.certChain[0] ?? csr).serial)
    expect(new Set(serials).size).toBe(60)
    const audited = ca.lines.map((line): { serial?: string } => JSON.parse(line))
    const recorded = new Set(audited.map(({ serial }) => serial))
    expect(serials.filter((it) => !recorded.has(it))).toEqual([])
  })

  it('takes 500 items, and is for agents', async () => {
    const params = Array.from({ length: 501 }, () => ({ entryId: 'db', csr: Buffer.of() }))
    expect(await denialOf(agent.client(SVID).batchNewX509SVID({ params }))).toEqual({
      code: 'InvalidArgument',
      message: 'params: more than 500 items',
    })
    expect(await denialOf(ca.local.client(SVID).batchNewX509SVID({ params: [] }))).toEqual({
      code: 'PermissionDenied',
      message: 'local is no agent',
    })
  })
})

describe('MintX509SVID', () => {
  const csrFor = (...names: (readonly [number, string])[]) =>
    makeCsr(newKeys(), { attributes: [requestedNames(...names)] })
  const mint = (csr: Uint8Array, ttl = 0) => ca.local.client(SVID).mintX509SVID({ csr, ttl })
  const uri = (text: string) => [0x86, text] as const

  it('gives an administrator the names it asks for', async () => {
    const csr = csrFor(uri('spiffe://example.org/tool'), [0x82, 'tool.example'])
    const { svid } = await mint(csr, 3600)
    expect(namesIn(svid?.certChain)).toEqual([
      [
        { kind: 'uri', value: 'spiffe://example.org/tool' },
        { kind: 'dns', value: 'tool.example' },
      ],
    ])
  })

  it.each([
    [
      'no name',
      csrFor([0x82, 'a.example']),
      'CSR refused: it asks for 0 URI names instead of one SPIFFE ID',
    ],
    [
      'X5-1 two names',
      csrFor(uri('spiffe://example.org/a'), uri('spiffe://example.org/a')),
      'CSR refused: it asks for 2 URI names instead of one SPIFFE ID',
    ],
    [
      'what is no SPIFFE ID',
      csrFor(uri('https://example.org/a')),
      '"https://example.org/a" is no SPIFFE ID: it does not start with spiffe://',
    ],
  ])('refuses %s', async (_, csr, message) => {
    expect(await denialOf(mint(csr))).toEqual({ code: 'InvalidArgument', message })
  })

  it.each([
    ['X5-4 the trust domain itself', 'spiffe://example.org', 'cannot be minted'],
    ['the authority', 'spiffe://example.org/spire/server', 'cannot be minted'],
    ['X5-7 a foreign ID', 'spiffe://other.org/a', 'is not of trust domain example.org'],
  ])('denies %s', async (_, name, why) => {
    const message = `${name} ${why}`
    expect(await denialOf(mint(csrFor(uri(name))))).toEqual({ code: 'PermissionDenied', message })
  })

  it('is no business of agents', async () => {
    const csr = csrFor(uri('spiffe://example.org/tool'))
    const message = `spiffe://example.org${agentPath} may not call spire.api.server.svid.v1.SVID/MintX509SVID`
    expect(await denialOf(agent.client(SVID).mintX509SVID({ csr }))).toEqual({
      code: 'PermissionDenied',
      message,
    })
    expect(await denialOf(mint(csr, -1))).toEqual({
      code: 'InvalidArgument',
      message: 'ttl: is negative',
    })
  })
})
