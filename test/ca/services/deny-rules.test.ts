// The deny-list at the authority: who gets on it, and what that ends at once.
import { once } from 'node:events'
import { connect } from 'node:tls'
import { describe, expect, it } from 'vitest'
import { DenyRules } from '../../../proto/gen/castellan/deny/v1/deny_rules_pb.js'
import { Records } from '../../../proto/gen/castellan/records/v1/records_pb.js'
import { Bundle } from '../../../proto/gen/spire/api/server/bundle/v1/bundle_pb.js'
import { LocalAuthority } from '../../../proto/gen/spire/api/server/localauthority/v1/localauthority_pb.js'
import { SVID } from '../../../proto/gen/spire/api/server/svid/v1/svid_pb.js'
import { parseCertificate } from '../../../spiffe/certificate.ts'
import { keyPairToPem } from '../../../spiffe/pem.ts'
import { type Connection, denialOf, newKeys } from '../../support/ca-client.ts'
import { makeCsr, requestedNames } from '../../support/csr.ts'
import { sharedCa } from '../../support/shared-ca.ts'

const ca = sharedCa()
const rules = (connection: Connection = ca.local) => connection.client(DenyRules)
const deny = (target: Parameters<ReturnType<typeof rules>['addRule']>[0]['rule'] & object) =>
  rules().addRule({ rule: { reason: 'a drill', ...target } })
const denyId = (value: string) => deny({ target: { case: 'spiffeId', value } })
const denySerial = (value: string) => deny({ target: { case: 'serial', value } })
const denyAuthority = (value: string) => deny({ target: { case: 'authorityId', value } })

const idOf = (name: string) => `spiffe://example.org/${name}`
async function mint(name: string): Promise<Uint8Array> {
  const csr = makeCsr(newKeys(), { attributes: [requestedNames([0x86, idOf(name)])] })
  const { svid } = await ca.local.client(SVID).mintX509SVID({ csr })
  return svid?.certChain[0] ?? new Uint8Array()
}
const serialOf = (der: Uint8Array) => parseCertificate(der).serial

/** An open connection; `ended` resolves when the server ends it. */
async function openConnection(credential: Awaited<ReturnType<typeof ca.join>>) {
  const socket = connect({
    ...{ host: '127.0.0.1', port: ca.running.port, ca: ca.roots, ALPNProtocols: ['h2'] },
    ...keyPairToPem({ chain: credential.chain, key: credential.keys.privateKey }),
    checkServerIdentity: () => undefined,
  })
  socket.on('error', () => {})
  await once(socket, 'secureConnect')
  socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
  socket.write(Uint8Array.of(0, 0, 0, 4, 0, 0, 0, 0, 0))
  await once(socket, 'data')
  const ended = once(socket, 'close')
  socket.resume()
  return { ended }
}

describe('a denied identity', () => {
  it('gets nothing new, until the rule is taken back', async () => {
    await mint('shop')
    const { id } = await denyId(idOf('shop'))
    const denied = {
      code: 'PermissionDenied',
      message: `id ${idOf('shop')} is on the deny-list`,
    }
    expect(await denialOf(mint('shop'))).toEqual(denied)
    expect(ca.lines.join('')).toContain(`id ${idOf('shop')} is on the deny-list: a drill`)
    const token = { id: { trustDomain: 'example.org', path: '/shop' }, audience: ['x'] }
    expect(await denialOf(ca.local.client(SVID).mintJWTSVID(token))).toEqual(denied)
    await mint('shop2')
    await rules().removeRule({ id })
    await mint('shop')
  })

  it('that is connected is cut off, and not let in again', async () => {
    const agent = await ca.join()
    const { ended } = await openConnection(agent)
    using connection = ca.remote(agent)
    expect(await denialOf(connection.client(Bundle).getBundle({}))).toBeUndefined()
    await denyId(agent.id)
    await ended
    using again = ca.remote(agent)
    expect(await denialOf(again.client(Bundle).getBundle({}))).toBeDefined()
    using stranger = ca.remote()
    expect(await denialOf(stranger.client(Bundle).getBundle({}))).toBeUndefined()
  })
})

describe('a rule', () => {
  it('of a serial ends with the certificate', async () => {
    const leaf = parseCertificate(await mint('one'))
    const rule = await denySerial(leaf.serial)
    expect(Number(rule.expiresAt) * 1000).toBe(leaf.notAfter)
    expect([rule.issuedTo, rule.root]).toEqual([idOf('one'), false])
    const listed = (await rules().listRules({})).rules.find(({ id }) => id === rule.id)
    expect(listed).toEqual(rule)
  })

  it('of an authority is for one that is tainted: agents have left it by then', async () => {
    const authorities = ca.local.client(LocalAuthority)
    expect(await denialOf(denyAuthority('0'.repeat(40)))).toMatchObject({ code: 'NotFound' })
    const { active: first } = await authorities.getX509AuthorityState({})
    const { preparedAuthority } = await authorities.prepareX509Authority({})
    for (const [id, is] of [
      [first?.authorityId ?? '', 'active'],
      [preparedAuthority?.authorityId ?? '', 'prepared'],
    ] as const) {
      expect(await denialOf(denyAuthority(id))).toEqual({
        code: 'FailedPrecondition',
        message: `authority ${id} is ${is}, not tainted; activate another one and run castellan authority taint ${id} first`,
      })
    }
  })

  it('is there once', async () => {
    const { id } = await denyId(idOf('twice'))
    expect(await denialOf(denyId(idOf('twice')))).toEqual({
      code: 'AlreadyExists',
      message: `rule ${id} denies the same`,
    })
  })

  it('cannot leave the trust domain without its authority', async () => {
    const refusal = {
      code: 'FailedPrecondition',
      message: expect.stringContaining('spiffe://example.org/spire/server is the authority itself'),
    }
    expect(await denialOf(denyId('spiffe://example.org/spire/server'))).toEqual(refusal)
    const id = 'spiffe://example.org/spire/server'
    const { certificates } = await ca.local.client(Records).listIssued({ spiffeId: id })
    expect(await denialOf(denySerial(certificates[0]?.serial ?? ''))).toEqual(refusal)
  })

  const bad = [
    ['no target', {}, 'rule.target: target is missing: a SPIFFE ID, a serial or an authority'],
    ['no SPIFFE ID', { target: { case: 'spiffeId', value: 'shop' } }, /^rule\.target: /],
    [
      'no serial',
      { target: { case: 'serial', value: 'XY' } },
      'rule.target: serial is not hexadecimal',
    ],
    [
      'an end in the past',
      { target: { case: 'spiffeId', value: idOf('x') }, expiresAt: 1n },
      'rule.expires_at: is in the past',
    ],
    [
      'an end beyond all time',
      { target: { case: 'spiffeId', value: idOf('x') }, expiresAt: 2n ** 63n - 1n },
      'rule.expires_at: is after the year 9999; 0 is never',
    ],
    [
      'a long reason',
      { target: { case: 'spiffeId', value: idOf('x') }, reason: 'x'.repeat(201) },
      /^rule\.reason: /,
    ],
    [
      'a reason of two lines',
      { target: { case: 'spiffeId', value: idOf('x') }, reason: 'a\nb' },
      /^rule\.reason: /,
    ],
  ] as const
  it.each(bad)('with %s is refused by its field', async (_, rule, message) => {
    expect(await denialOf(deny(rule))).toEqual({
      code: 'InvalidArgument',
      message: typeof message === 'string' ? message : expect.stringMatching(message),
    })
  })

  it('of an unknown serial, and the removal of an unknown rule, are NOT_FOUND', async () => {
    expect(await denialOf(denySerial('41'))).toMatchObject({ code: 'NotFound' })
    expect(await denialOf(rules().removeRule({ id: 'x' }))).toMatchObject({ code: 'NotFound' })
  })
})

describe('what was issued', () => {
  const list = (request: object) => ca.local.client(Records).listIssued(request)

  it('is listed, the newest first, page by page', async () => {
    const serials: string[] = []
    for (let i = 0; i < 5; i++) serials.unshift(serialOf(await mint('listed')))
    const seen: string[] = []
    let pageToken = ''
    do {
      const page = await list({ spiffeId: idOf('listed'), pageSize: 2, pageToken })
      seen.push(...page.certificates.map(({ serial }) => serial))
      pageToken = page.nextPageToken
    } while (pageToken !== '')
    expect(seen).toEqual(serials)
  })

  it('is found by serial, with who asked for it', async () => {
    const leaf = await mint('found')
    const { certificates } = await list({ serial: serialOf(leaf) })
    expect(certificates).toMatchObject([
      { spiffeId: idOf('found'), requester: 'local', entryId: '' },
    ])
    expect(Buffer.from(certificates[0]?.certificate ?? [])).toEqual(Buffer.from(leaf))
  })

  it('is left out when it was valid before', async () => {
    await mint('new')
    const soon = BigInt(Math.floor(Date.now() / 1000) + 60)
    expect((await list({ spiffeId: idOf('new'), since: soon })).certificates).toEqual([])
    expect((await list({ spiffeId: idOf('new'), since: soon - 600n })).certificates).toHaveLength(1)
  })

  it.each([{ pageSize: -1 }, { pageToken: 'x' }, { serial: 'x' }, { spiffeId: 'x' }])(
    'is not listed for %j',
    async (request) => {
      expect(await denialOf(list(request))).toMatchObject({ code: 'InvalidArgument' })
    },
  )
})
