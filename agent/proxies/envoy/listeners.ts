// Listeners. They say nothing of policies: a listener that changes closes connections, or keeps them as they were.
import { create } from '@bufbuild/protobuf'
import type { Connection } from '../../../policies/lower/lower.ts'
import { TrafficDirection } from '../../../proto/gen/envoy/config/core/v3/base_pb.js'
import { ApiVersion } from '../../../proto/gen/envoy/config/core/v3/config_source_pb.js'
import { HttpProtocolOptions_HeadersWithUnderscoresAction as Underscores } from '../../../proto/gen/envoy/config/core/v3/protocol_pb.js'
import type {
  FilterChainSchema,
  FilterSchema,
} from '../../../proto/gen/envoy/config/listener/v3/listener_components_pb.js'
import {
  type Listener,
  ListenerSchema,
} from '../../../proto/gen/envoy/config/listener/v3/listener_pb.js'
import { RouterSchema } from '../../../proto/gen/envoy/extensions/filters/http/router/v3/router_pb.js'
import { TlsInspectorSchema } from '../../../proto/gen/envoy/extensions/filters/listener/tls_inspector/v3/tls_inspector_pb.js'
import { ConnectionLimitSchema } from '../../../proto/gen/envoy/extensions/filters/network/connection_limit/v3/connection_limit_pb.js'
import { ExtAuthzSchema } from '../../../proto/gen/envoy/extensions/filters/network/ext_authz/v3/ext_authz_pb.js'
import {
  HttpConnectionManager_ForwardClientCertDetails as ClientCert,
  HttpConnectionManager_CodecType as Codec,
  HttpConnectionManager_PathWithEscapedSlashesAction as EscapedSlashes,
  HttpConnectionManagerSchema,
} from '../../../proto/gen/envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager_pb.js'
import {
  TcpProxy_UpstreamConnectMode as ConnectMode,
  TcpProxySchema,
} from '../../../proto/gen/envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy_pb.js'
import type { InboundSpec } from '../../../proxy-spec/inbound.ts'
import type { OutboundSpec } from '../../../proxy-spec/outbound.ts'
import { peerCluster, workloadCluster } from './clusters.ts'
import { connectionsOf } from './enforcement.ts'
import { durationOf, type Init, overAds, socketAddress, typed } from './extension.ts'
import { agentService, httpFilters } from './http-filters.ts'
import { downstreamTls, type Secrets } from './tls.ts'

type Filter = Init<typeof FilterSchema>
type FilterChain = Init<typeof FilterChainSchema>
type Manager = Init<typeof HttpConnectionManagerSchema>

const managerName = 'envoy.filters.network.http_connection_manager'

// as in the embedded proxy
const limitsOf = ({ limits }: InboundSpec) => ({
  headerKilobytes: Math.ceil((limits.headerBytes ?? 16 * 1024) / 1024),
  headers: limits.headers ?? 100,
  streams: limits.streams ?? 100,
  requestHeaders: limits.requestHeaders ?? 5_000,
  idle: limits.idle ?? 65_000,
})
const streamIdle = 300_000
/** that wait for the workload */
const earlyBytes = 64 * 1024
const drain = 5000

const codecs = { http: Codec.AUTO, grpc: Codec.HTTP2 } as const

export interface Inbound {
  readonly resource: string
  readonly name: string
  readonly secrets: Secrets
  /** milliseconds */
  readonly maxConnectionAge: number
  readonly canAsk: boolean
  /** whether certificates of other trust domains are believed */
  readonly isFederated: boolean
  /** how many entries from the right of X-Forwarded-For the client is, where rules look there */
  readonly trustedHops: number
  /** see Situation */
  readonly cut: string
  /** names what was decided by about connections, where that is not looked at again; empty elsewhere */
  readonly rules: string
}

/** What of requests both programs could read differently is refused or made plain before anything looks at it. */
const strict: Manager = {
  normalizePath: true,
  mergeSlashes: true,
  pathWithEscapedSlashesAction: EscapedSlashes.REJECT_REQUEST,
}

function inboundManager(spec: InboundSpec, inbound: Inbound, routeConfigName: string): Filter {
  const { resource, maxConnectionAge, canAsk, isFederated, trustedHops } = inbound
  const limits = limitsOf(spec)
  return typed(managerName, HttpConnectionManagerSchema, {
    ...strict,
    statPrefix: resource,
    codecType: codecs[spec.protocol === 'grpc' ? 'grpc' : 'http'],
    routeSpecifier: { case: 'rds', value: { routeConfigName, configSource: overAds } },
    httpFilters: httpFilters(canAsk),
    useRemoteAddress: true,
    xffNumTrustedHops: trustedHops,
    forwardClientCertDetails: ClientCert.SANITIZE_SET,
    // with the chain where certificates of others come: the agent is told of the leaf alone otherwise
    setCurrentClientCertDetails: { uri: true, chain: isFederated },
    maxRequestHeadersKb: limits.headerKilobytes,
    requestHeadersTimeout: durationOf(limits.requestHeaders),
    streamIdleTimeout: durationOf(spec.limits.idle ?? streamIdle),
    // beyond the age of a connection
    drainTimeout: durationOf(Math.min(drain, maxConnectionAge / 4)),
    upgradeConfigs: [{ upgradeType: 'websocket' }],
    http2ProtocolOptions: { maxConcurrentStreams: limits.streams },
    commonHttpProtocolOptions: {
      maxConnectionDuration: durationOf(maxConnectionAge),
      idleTimeout: durationOf(limits.idle),
      maxHeadersCount: limits.headers,
      headersWithUnderscoresAction: Underscores.REJECT_REQUEST,
    },
  })
}

/** Nothing is said to the workload before Envoy has asked, which it does at the client's first byte. */
function connecting({ serverFirst }: InboundSpec) {
  if (serverFirst) return {}
  return { upstreamConnectMode: ConnectMode.ON_DOWNSTREAM_DATA, maxEarlyDataBytes: earlyBytes }
}

function tcpFilters(spec: InboundSpec, { resource, name, maxConnectionAge }: Inbound): Filter[] {
  return [
    typed('envoy.filters.network.ext_authz', ExtAuthzSchema, {
      statPrefix: resource,
      grpcService: agentService,
      failureModeAllow: false,
      includePeerCertificate: true,
      includeTlsSession: true,
      transportApiVersion: ApiVersion.V3,
    }),
    typed('envoy.filters.network.tcp_proxy', TcpProxySchema, {
      statPrefix: resource,
      clusterSpecifier: { case: 'cluster', value: workloadCluster(name) },
      maxDownstreamConnectionDuration: durationOf(maxConnectionAge),
      ...connecting(spec),
    }),
  ]
}

function connectionLimit({ limits }: InboundSpec, { resource }: Inbound): Filter[] {
  if (limits.connections === undefined) return []
  const value = { statPrefix: resource, maxConnections: BigInt(limits.connections) }
  return [typed('envoy.filters.network.connection_limit', ConnectionLimitSchema, value)]
}

/** Of the requests that come by one kind of connection. */
export const routesOf = (resource: string, connection: Connection): string =>
  connection === 'mutual-tls' ? resource : `${resource}/plaintext`

/** Envoy drains the connections of a chain that is not what it was, and takes new ones by the next. */
function marked(cut: string, rules = ''): FilterChain {
  const castellan = { ...(cut === '' ? {} : { cut }), ...(rules === '' ? {} : { rules }) }
  return cut === '' && rules === '' ? {} : { metadata: { filterMetadata: { castellan } } }
}

const alpn = { http: ['h2', 'http/1.1'], grpc: ['h2'], tcp: [] } as const

function inboundChain(spec: InboundSpec, inbound: Inbound, connection: Connection): FilterChain {
  const routes = routesOf(inbound.resource, connection)
  const own =
    spec.protocol === 'tcp' ? tcpFilters(spec, inbound) : [inboundManager(spec, inbound, routes)]
  const filters = [...connectionLimit(spec, inbound), ...own]
  if (connection === 'plaintext') {
    return {
      ...marked('', inbound.rules),
      name: connection,
      filters,
      filterChainMatch: { transportProtocol: 'raw_buffer' },
    }
  }
  return {
    ...marked(inbound.cut, inbound.rules),
    name: connection,
    filters,
    filterChainMatch: { transportProtocol: 'tls' },
    transportSocket: downstreamTls(inbound.secrets, alpn[spec.protocol]),
    transportSocketConnectTimeout: durationOf(5_000),
  }
}

const inspector = typed('envoy.filters.listener.tls_inspector', TlsInspectorSchema, {})

export function inboundListener(spec: InboundSpec, inbound: Inbound): Listener {
  return create(ListenerSchema, {
    name: inbound.resource,
    address: socketAddress(spec.listen),
    trafficDirection: TrafficDirection.INBOUND,
    listenerFilters: [inspector],
    listenerFiltersTimeout: durationOf(5_000),
    filterChains: connectionsOf(spec).map((it) => inboundChain(spec, inbound, it)),
    perConnectionBufferLimitBytes: 1024 * 1024,
  })
}

function outboundManager(spec: OutboundSpec, resource: string): Filter {
  return typed(managerName, HttpConnectionManagerSchema, {
    ...strict,
    statPrefix: resource,
    codecType: codecs[spec.protocol === 'grpc' ? 'grpc' : 'http'],
    routeSpecifier: { case: 'rds', value: { routeConfigName: resource, configSource: overAds } },
    httpFilters: [typed('envoy.filters.http.router', RouterSchema, {})],
    // whoever connects here is this workload: nothing is said of it but its identity
    useRemoteAddress: false,
    skipXffAppend: true,
    forwardClientCertDetails: ClientCert.SANITIZE,
    streamIdleTimeout: durationOf(streamIdle),
    upgradeConfigs: [{ upgradeType: 'websocket' }],
  })
}

export interface Outbound {
  readonly resource: string
  readonly name: string
  /** see Situation */
  readonly cut: string
}

export function outboundListener(spec: OutboundSpec, { resource, name, cut }: Outbound): Listener {
  const filter =
    spec.protocol === 'tcp'
      ? typed('envoy.filters.network.tcp_proxy', TcpProxySchema, {
          statPrefix: resource,
          clusterSpecifier: { case: 'cluster', value: peerCluster(name) },
          maxConnectAttempts: 1 + spec.retries.attempts,
        })
      : outboundManager(spec, resource)
  return create(ListenerSchema, {
    name: resource,
    address: socketAddress(spec.listen),
    trafficDirection: TrafficDirection.OUTBOUND,
    filterChains: [{ ...marked(cut), filters: [filter] }],
  })
}
