// What a gRPC program is told: names, whom it expects, what it cannot do.
import type { JsonValue } from '@bufbuild/protobuf'
import { describe, expect, it } from 'vitest'
import { planOf } from '../../../../agent/proxies/envoy/plan.ts'
import type { Situation } from '../../../../agent/proxies/envoy/snapshot.ts'
import { grpcBootstrap } from '../../../../agent/proxies/grpc/bootstrap.ts'
import { demandGrpcCan } from '../../../../agent/proxies/grpc/problems.ts'
import { grpcSnapshot } from '../../../../agent/proxies/grpc/snapshot.ts'
import { noPolicies } from '../../../../policies/compile.ts'
import { type ProxySpec, proxySpec } from '../../../../proxy-spec/spec.ts'
import { address } from '../../../../runtime/config.ts'
import { parseSpiffeId } from '../../../../spiffe/id.ts'

const identity = parseSpiffeId('spiffe://example.org/ns/shop/sa/web')
const peer = 'spiffe://example.org/ns/shop/sa/db'

const outbound = (more: object) => ({
  ...{ listen: '127.0.0.1:0', protocol: 'grpc', expect: [peer], loadBalancing: 'round-robin' },
  ...more,
})
const inbound = (more: object = {}) => ({
  ...{ name: 'web', listen: '127.0.0.1:9000', protocol: 'grpc', forwardTo: '127.0.0.1:9000' },
  ...more,
})

const situationOf = (spec: ProxySpec, more: Partial<Situation> = {}): Situation => ({
  ...{
    spec,
    identity,
    labels: {},
    policies: noPolicies,
    revoked: [],
    unseen: [],
    asksAlways: false,
    ...{ cuts: { inbound: '', outbound: {} }, life: 3_600_000 },
  },
  ...{ trust: { own: 'spiffe://example.org', all: 'ALL' }, isFederated: false },
  ...{ endpoints: new Map(), decisions: undefined },
  ...more,
})

const planFor = (spec: unknown, more: Partial<Situation> = {}) =>
  planOf(grpcSnapshot(situationOf(proxySpec.parse(spec), more)))

/** What stands under a name, wherever that is. */
function found(value: JsonValue, name: string): JsonValue[] {
  if (typeof value !== 'object' || value === null) return []
  if (Array.isArray(value)) return value.flatMap((it) => found(it, name))
  return Object.entries(value).flatMap(([key, it]) => [
    ...(key === name ? [it] : []),
    ...found(it, name),
  ])
}

const names = (resources: readonly JsonValue[]) =>
  resources.flatMap((it) => found(it, 'name').slice(0, 1))

describe('what a gRPC program dials', () => {
  const endpoints = new Map([
    [
      'db',
      [address.parse('10.0.0.1:80'), address.parse('10.0.0.2:80'), address.parse('10.0.0.1:80')],
    ],
  ])

  it('leads by listener, routes and cluster to each endpoint once', () => {
    const plan = planFor({ outbound: [outbound({ service: 'db' })] }, { endpoints })
    expect(names(plan.listeners)).toEqual(['db'])
    expect(found([...plan.listeners], 'route_config_name')).toEqual(['outbound/db'])
    expect(found([...plan.routes], 'cluster')).toEqual(['peer/db'])
    expect(found([...plan.clusters], 'service_name')).toEqual(['peer/db'])
    expect(found([...plan.endpoints], 'address').length).toBe(4)
    expect(found([...plan.endpoints], 'locality')).toEqual([{}])
    expect(plan.remarks).toEqual([])
  })

  it('has to show what is expected: in the list that gRPC reads, and in the one that it should read', () => {
    const [cluster = null] = planFor(
      { outbound: [outbound({ service: 'db' })] },
      { endpoints },
    ).clusters
    expect(found(cluster, 'match_subject_alt_names')).toEqual([[{ exact: peer }]])
    expect(found(cluster, 'match_typed_subject_alt_names')).toEqual([
      [{ san_type: 'URI', matcher: { exact: peer } }],
    ])
    expect(found(cluster, 'tls_params')).toEqual([])
  })

  it('is looked up by the program where it is one host name', () => {
    const plan = planFor({ outbound: [outbound({ name: 'far', destination: 'db.internal:80' })] })
    expect(found([...plan.clusters], 'type')[0]).toBe('LOGICAL_DNS')
    expect(plan.endpoints).toEqual([])
  })

  it.each([
    ['several host names', { destination: ['a.internal:80', 'b.internal:80'] }, 'one host name'],
    [
      'others',
      { destination: '10.0.0.1:80', expect: ['spiffe://other.org/db'] },
      'own trust domain',
    ],
    ['bytes', { destination: '10.0.0.1:80', protocol: 'tcp' }, 'no bytes'],
  ])('%s cannot be dialled, and that is said', (_, more, why) => {
    const plan = planFor({ outbound: [outbound({ name: 'far', ...more })] })
    expect(plan.listeners).toEqual([])
    expect(plan.clusters).toEqual([])
    expect(plan.remarks[0]).toContain(why)
  })

  it('is without those on the deny-list, and without endpoints where nobody else is expected', () => {
    const other = 'spiffe://example.org/ns/shop/sa/db2'
    const revoked = [parseSpiffeId(peer)]
    const some = planFor(
      { outbound: [outbound({ service: 'db', expect: [peer, other] })] },
      { endpoints, revoked },
    )
    expect(found([...some.clusters], 'match_subject_alt_names')).toEqual([[{ exact: other }]])
    const none = planFor({ outbound: [outbound({ service: 'db' })] }, { endpoints, revoked })
    expect(found([...none.clusters], 'match_subject_alt_names')).toEqual([[{ exact: peer }]])
    expect(found([...none.endpoints], 'lb_endpoints')).toEqual([])
    expect(none.remarks[0]).toContain('deny-list')
  })

  it('is told what is done otherwise', () => {
    const more = {
      service: 'db',
      loadBalancing: 'random',
      outliers: {},
      retries: { on: ['reset'], perTry: '1s' },
    }
    expect(planFor({ outbound: [outbound(more)] }, { endpoints }).remarks.length).toBe(4)
  })
})

describe('what a gRPC program serves', () => {
  it('is known by its address, and asks for a certificate', () => {
    const { listeners, decisions } = planFor({ inbound: [inbound()] })
    expect(names(listeners)).toEqual(['castellan/server/127.0.0.1:9000'])
    expect(found([...listeners], 'require_client_certificate')).toEqual([true])
    expect(decisions).toEqual({ web: { by: 'native', reasons: [] } })
  })

  it('without policies lets nobody in, by a filter that says so', () => {
    const filters = found([...planFor({ inbound: [inbound()] }).listeners], 'http_filters').flat()
    expect(names(filters)).toEqual(['castellan_guard', 'castellan_closed', 'router'])
    expect(found(filters, 'rules').length).toBe(2)
  })

  it('whose connections are to have an age is told where to set that', () => {
    const { remarks } = planFor({ inbound: [inbound({ maxConnectionAge: '10m' })] })
    expect(remarks).toEqual([
      'web: connections are not ended by maxConnectionAge: set grpc.max_connection_age_ms to 600000 in the server',
    ])
  })

  it('names who is revoked first', () => {
    const plan = planFor({ inbound: [inbound()] }, { revoked: [parseSpiffeId(peer)] })
    const filters = found([...plan.listeners], 'http_filters').flat()
    expect(names(filters)[0]).toBe('castellan_revoked')
    expect(found(filters.slice(0, 1), 'principal_name')).toEqual([{ exact: peer }])
  })

  it.each([
    ['permissive', { mtls: 'permissive' }],
    ['off', { mtls: 'off' }],
    ['tcp', { protocol: 'tcp' }],
  ])('%s is closed', (_, more) => {
    const { decisions, listeners } = planFor({ inbound: [inbound(more)] })
    expect(decisions.web?.by).toBe('closed')
    expect(names(found([...listeners], 'http_filters').flat())).toEqual([
      'castellan_closed',
      'router',
    ])
  })
})

describe('a spec for a gRPC program', () => {
  const demanding = (spec: unknown) => () => demandGrpcCan(proxySpec.parse(spec))

  it('is refused where a program cannot do it', () => {
    expect(demanding({ inbound: [inbound()] })).not.toThrow()
    expect(demanding({ inbound: [inbound({ mtls: 'permissive' })] })).toThrow('mutual TLS')
    expect(demanding({ inbound: [inbound({ listen: 'web.internal:80' })] })).toThrow('IP address')
    expect(demanding({ outbound: [outbound({ service: 'db', protocol: 'tcp' })] })).toThrow('bytes')
  })

  it('is refused where one name leads to two', () => {
    const spec = { outbound: [outbound({ service: 'db' }), outbound({ service: 'db' })] }
    expect(demanding(spec)).toThrow('outbound[1]: db is dialled already')
  })
})

describe('its bootstrap', () => {
  it('names the files by the provider that resources ask for', () => {
    const files = { chain: '/f/svid.pem', key: '/f/key.pem', roots: '/f/bundle.pem' }
    const bootstrap = grpcBootstrap({ socket: '/run/s', ...files, refresh: 10, nodeId: 'web' })
    expect(bootstrap).toMatchObject({
      xds_servers: [{ server_uri: 'unix:/run/s', channel_creds: [{ type: 'insecure' }] }],
      node: { locality: {} },
      certificate_providers: { castellan: { plugin_name: 'file_watcher' } },
      server_listener_resource_name_template: 'castellan/server/%s',
    })
  })
})
