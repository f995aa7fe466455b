// Route configurations: who may pass is in here, and so reaches connections that are open.
import { create } from '@bufbuild/protobuf'
import { HeaderValueOption_HeaderAppendAction as Append } from '../../../proto/gen/envoy/config/core/v3/base_pb.js'
import type {
  HeaderMatcherSchema,
  RetryPolicySchema,
  RouteActionSchema,
  RouteSchema,
} from '../../../proto/gen/envoy/config/route/v3/route_components_pb.js'
import {
  type RouteConfiguration,
  RouteConfigurationSchema,
} from '../../../proto/gen/envoy/config/route/v3/route_pb.js'
import { peerIdHeader } from '../../../proxy-spec/header-names.ts'
import type { InboundSpec } from '../../../proxy-spec/inbound.ts'
import type { OutboundSpec } from '../../../proxy-spec/outbound.ts'
import { peerCluster, workloadCluster, workloadHttp2Cluster } from './clusters.ts'
import { durationOf, type Init } from './extension.ts'
import { type Judged, judged, unjudged } from './http-filters.ts'

type Route = Init<typeof RouteSchema>
type HeaderMatcher = Init<typeof HeaderMatcherSchema>

/** Set from the certificate, whatever came; without one it is taken away. */
function named(header: string, value: string) {
  return {
    header: { key: header, value },
    appendAction: Append.OVERWRITE_IF_EXISTS_OR_ADD,
    keepEmptyValue: false,
  }
}

const noLonger = (header: string) => [...new Set([header, peerIdHeader])]

interface Telling {
  readonly requestHeadersToRemove: string[]
  readonly requestHeadersToAdd?: ReturnType<typeof named>[]
}

/** What the workload is told by the identity header alone. */
const unsaid = (header: string) => [...noLonger(header), 'x-forwarded-client-cert']

/** Who calls, where that was decided about. */
const telling = (header: string, hasPeer: boolean): Telling => ({
  requestHeadersToRemove: unsaid(header),
  requestHeadersToAdd: hasPeer ? [named(header, '%DOWNSTREAM_PEER_URI_SAN%')] : [],
})

/** Of a certificate that nobody has looked at closely the workload hears nothing. */
const silent = (header: string): Telling => ({
  requestHeadersToRemove: unsaid(header),
})

const method = (regex: string, invertMatch = false): HeaderMatcher => ({
  name: ':method',
  invertMatch,
  headerMatchSpecifier: {
    case: 'stringMatch',
    value: { matchPattern: { case: 'safeRegex', value: { regex } } },
  },
})

function to(cluster: string, more: Init<typeof RouteActionSchema> = {}) {
  return {
    case: 'route',
    // streams may take as long as they like
    value: {
      clusterSpecifier: { case: 'cluster', value: cluster },
      timeout: durationOf(0),
      ...more,
    },
  } as const
}

const everything = { pathSpecifier: { case: 'prefix', value: '/' } } as const

const refusedStream = { retryOn: 'connect-failure,refused-stream', numRetries: 1 } as const

function workloadRoutes(
  { protocol, healthPath }: InboundSpec,
  { name, judge, hasPeer }: InboundRoutes,
): Route[] {
  const { identityHeader } = judge.told
  const told = telling(identityHeader, hasPeer)
  const workload = workloadCluster(name)
  const action = to(workload, { retryPolicy: refusedStream })
  const health: Route[] =
    healthPath === undefined
      ? []
      : [
          {
            name: 'health',
            match: {
              pathSpecifier: { case: 'path', value: healthPath },
              headers: [method('GET|HEAD')],
            },
            action,
            ...silent(identityHeader),
            typedPerFilterConfig: unjudged({ ...judge, hasPeer }),
          },
        ]
  const grpc: Route[] =
    protocol === 'grpc'
      ? []
      : [
          {
            name: 'grpc',
            match: { ...everything, grpc: {} },
            action: to(workloadHttp2Cluster(name), { retryPolicy: refusedStream }),
            ...told,
          },
        ]
  return [...health, ...grpc, { name: 'all', match: everything, action, ...told }]
}

export interface InboundRoutes {
  readonly resource: string
  readonly name: string
  readonly judge: Judged
  /** whether callers have shown a certificate */
  readonly hasPeer: boolean
}

export function inboundRoutes(spec: InboundSpec, inbound: InboundRoutes): RouteConfiguration {
  const { resource, judge } = inbound
  return create(RouteConfigurationSchema, {
    name: resource,
    virtualHosts: [
      {
        name: 'all',
        domains: ['*'],
        routes: workloadRoutes(spec, inbound),
        typedPerFilterConfig: judged(judge),
        responseHeadersToRemove: noLonger(judge.told.identityHeader),
      },
    ],
  })
}

const idempotent = 'GET|HEAD|OPTIONS|TRACE|PUT|DELETE'
/** They say that nothing was done. */
const harmless: ReadonlySet<string> = new Set(['connect-failure', 'refused-stream'])

function retryPolicy(
  { retries }: OutboundSpec,
  on: readonly string[],
): Init<typeof RetryPolicySchema> | undefined {
  const { attempts, perTry, backoff } = retries
  if (attempts === 0 || on.length === 0) return undefined
  return {
    retryOn: on.join(','),
    numRetries: attempts,
    retryBackOff: { baseInterval: durationOf(backoff), maxInterval: durationOf(backoff * 10) },
    ...(perTry === undefined ? {} : { perTryTimeout: durationOf(perTry) }),
  }
}

function peerAction(spec: OutboundSpec, name: string, on: readonly string[]) {
  const policy = retryPolicy(spec, on)
  return to(peerCluster(name), {
    timeout: durationOf(spec.timeout ?? 0),
    ...(policy === undefined ? {} : { retryPolicy: policy }),
  })
}

function peerRoutes(spec: OutboundSpec, name: string): Route[] {
  const { on } = spec.retries
  const safe = on.filter((it) => harmless.has(it))
  const any: Route = { name: 'all', match: everything, action: peerAction(spec, name, safe) }
  if (safe.length === on.length) return [any]
  // what may have been done already is asked again only where that changes nothing, and where gRPC says so
  const careful = on.filter((it) => it !== 'unavailable')
  const repeatable: Route = {
    name: 'idempotent',
    match: { ...everything, headers: [method(idempotent)] },
    action: peerAction(spec, name, careful),
  }
  const calls: Route = {
    name: 'grpc',
    match: { ...everything, grpc: {} },
    action: peerAction(spec, name, on.includes('unavailable') ? [...safe, 'unavailable'] : safe),
  }
  return [calls, repeatable, any]
}

export function outboundRoutes(
  spec: OutboundSpec,
  {
    resource,
    name,
    identityHeader,
  }: { readonly resource: string; readonly name: string; readonly identityHeader: string },
): RouteConfiguration {
  return create(RouteConfigurationSchema, {
    name: resource,
    virtualHosts: [
      {
        name: 'all',
        domains: ['*'],
        routes: peerRoutes(spec, name),
        requestHeadersToRemove: noLonger(identityHeader),
        responseHeadersToRemove: noLonger(identityHeader),
        responseHeadersToAdd: [named(identityHeader, '%UPSTREAM_PEER_URI_SAN%')],
      },
    ],
  })
}
