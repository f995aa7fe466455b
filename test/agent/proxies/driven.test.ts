// Who decides at a driven Envoy, as the deny-list moves; and what its health path does not say.
import { create, type MessageInitShape } from '@bufbuild/protobuf'
import { anyUnpack } from '@bufbuild/protobuf/wkt'
import { beforeEach, describe, expect, it } from 'vitest'
import type { Knowledge } from '../../../agent/knowledge.ts'
import { signCrl } from '../../../ca/crl.ts'
import { AuthorityMessageSchema } from '../../../proto/gen/castellan/control/v1/control_pb.js'
import { RouteConfigurationSchema } from '../../../proto/gen/envoy/config/route/v3/route_pb.js'
import { RBACPerRouteSchema } from '../../../proto/gen/envoy/extensions/filters/http/rbac/v3/rbac_pb.js'
import { proxySpec } from '../../../proxy-spec/spec.ts'
import { parseCertificate, serialFromHex } from '../../../spiffe/certificate.ts'
import { parseSpiffeId } from '../../../spiffe/id.ts'
import { keyIdOf } from '../../../spiffe/key-id.ts'
import { knowledgeOf, snapshotBy } from '../../support/driving.ts'
import { makeRoot, svidOf, trustDomain } from '../xds/sds-server.ts'

const path = '/ns/shop/sa/web'
const identity = parseSpiffeId(`spiffe://${trustDomain}${path}`)
const root = makeRoot('ours')
const authority = parseCertificate(root.certificate)
const svid = svidOf(root, path)
const specOf = (mtls: 'strict' | 'permissive') =>
  proxySpec.parse({
    identity,
    inbound: [
      {
        ...{ name: 'web', listen: '127.0.0.1:8443', protocol: 'http', forwardTo: '127.0.0.1:80' },
        ...{ healthPath: '/healthz', mtls },
      },
    ],
  })
const strict = specOf('strict')

const hour = 3_600_000
const crlOf = (...serials: readonly string[]) =>
  signCrl(
    {
      issuer: authority.subject,
      authorityKeyId: keyIdOf(authority.publicKey),
      ...{ number: 1, thisUpdate: Date.now(), nextUpdate: Date.now() + hour },
      revoked: serials.flatMap((text) => {
        const serial = serialFromHex(text)
        return serial === undefined ? [] : [{ serial, at: Date.now() }]
      }),
    },
    root.privateKey,
  )
const crl = crlOf('0a')

let knowledge: Knowledge
beforeEach(() => {
  knowledge = knowledgeOf(path, [root])
})

const apply = (message: MessageInitShape<typeof AuthorityMessageSchema>) =>
  knowledge.apply(create(AuthorityMessageSchema, message))

type Target = { case: 'serial' | 'authorityId' | 'spiffeId'; value: string }
type Rule = { id: string; createdAt?: bigint; target: Target; root?: boolean }
const deny = (rules: readonly Rule[], crls: readonly Uint8Array[] = []) =>
  apply({ revocation: { denyList: { rules: [...rules] }, crls: [...crls] } })

const snapshot = (decisions?: string, spec = strict) =>
  snapshotBy({ knowledge, spec, identity, svid, decisions })

const decides = (decisions?: string) => snapshot(decisions).enforcement.get('web')

describe('Envoy decides alone', () => {
  it('while nothing is denied', () => {
    expect(decides('/run/authz.sock')).toEqual({ by: 'native', reasons: [] })
  })

  it.each<[string, Rule['target'], readonly Uint8Array[]]>([
    ['an identity', { case: 'spiffeId', value: `${identity}/a` }, []],
    ['a certificate, and the CRLs are whole', { case: 'serial', value: '0a' }, [crl]],
    [
      'a root of ours, which it does not believe then',
      { case: 'authorityId', value: keyIdOf(authority.publicKey).toString('hex') },
      [],
    ],
  ])('where the deny-list names %s', (_, target, crls) => {
    deny([{ id: '1', target }], crls)
    expect(decides()?.by).toBe('native')
  })
})

it('Envoy decides alone where a root is denied that nobody has any more', () => {
  deny([{ id: '1', target: { case: 'authorityId', value: 'ab'.repeat(20) }, root: true }])
  expect(decides()?.by).toBe('native')
})

describe('the agent is asked, or nobody gets in', () => {
  it.each<[string, Rule['target'], readonly Uint8Array[], RegExp]>([
    ['a certificate, and there is no CRL', { case: 'serial', value: '0a' }, [], /CRLs/],
    ['an authority below ours', { case: 'authorityId', value: 'ab'.repeat(20) }, [], /has signed/],
  ])('where the deny-list names %s', (_, target, crls, why) => {
    deny([{ id: '1', target }], crls)
    expect(decides('/run/authz.sock')).toMatchObject({ by: 'asked' })
    expect(decides()).toMatchObject({ by: 'closed', reasons: [expect.stringMatching(why)] })
    deny([])
    expect(decides()?.by).toBe('native')
  })

  it('where the deny-list names a certificate that no CRL names yet, for two minutes', () => {
    const rule = { id: '1', target: { case: 'serial', value: '0b' } } as const
    const now = Math.floor(Date.now() / 1000)
    deny([{ ...rule, createdAt: BigInt(now) }], [crl])
    expect(decides()?.by).toBe('closed')
    expect(snapshot().changesAt).toBe((now + 120) * 1000)
    // its issuer is not believed any more, or it is over
    deny([{ ...rule, createdAt: BigInt(now - 121) }], [crl])
    expect(decides()?.by).toBe('native')
  })

  it('and the snapshot ends with the lists that it was made with', () => {
    deny([{ id: '1', target: { case: 'serial', value: '0a' } }], [crl])
    const { changesAt = 0 } = snapshot()
    expect(changesAt).toBeGreaterThan(Date.now())
    expect(changesAt).toBeLessThanOrEqual(Date.now() + hour)
  })
})

it('whoever shows no certificate is not looked up in the deny-list: Envoy would refuse all of them', () => {
  deny([{ id: '1', target: { case: 'spiffeId', value: `${identity}/a` } }])
  const { routes } = snapshot(undefined, specOf('permissive'))
  const found = ['inbound/web', 'inbound/web/plaintext'].map((name) => {
    const any = routes.get(name)?.pack()
    const [host] = (any && anyUnpack(any, RouteConfigurationSchema)?.virtualHosts) ?? []
    const filter = host?.typedPerFilterConfig.castellan_judge
    return filter && anyUnpack(filter, RBACPerRouteSchema)?.rbac?.matcher?.matcherType.case
  })
  // callers are looked up, then comes the guard
  expect(found).toEqual(['matcherTree', 'matcherList'])
})

describe('the health path', () => {
  const host = () => {
    const any = snapshot().routes.get('inbound/web')?.pack()
    const routes = any && anyUnpack(any, RouteConfigurationSchema)?.virtualHosts[0]?.routes
    return new Map(routes?.map((it) => [it.name, it]))
  }

  it('tells the workload of nobody, whatever a client says', () => {
    const { requestHeadersToAdd: added, requestHeadersToRemove: removed } =
      host().get('health') ?? {}
    expect(added).toEqual([])
    expect(removed).toEqual(['x-spiffe-peer-id', 'x-forwarded-client-cert'])
    expect(
      host()
        .get('all')
        ?.requestHeadersToAdd.map(({ header }) => header?.key),
    ).toEqual(['x-spiffe-peer-id'])
  })

  const look = () => {
    const any = host().get('health')?.typedPerFilterConfig.castellan_judge
    return any && anyUnpack(any, RBACPerRouteSchema)?.rbac?.matcher?.matcherType.case
  }

  it('looks at the name that a client shows, and whether it is denied', () => {
    expect(look()).toBe('matcherList')
    deny([{ id: '1', target: { case: 'spiffeId', value: `${identity}/a` } }])
    expect(look()).toBe('matcherTree')
  })
})
