// Clusters: the workload behind a listener, the peers before one, the agent's decisions.
import { isIP } from 'node:net'
import { create } from '@bufbuild/protobuf'
import type { Any } from '@bufbuild/protobuf/wkt'
import type { CircuitBreakersSchema } from '../../../proto/gen/envoy/config/cluster/v3/circuit_breaker_pb.js'
import {
  type Cluster,
  Cluster_DiscoveryType,
  Cluster_LbPolicy,
  ClusterSchema,
} from '../../../proto/gen/envoy/config/cluster/v3/cluster_pb.js'
import type { OutlierDetectionSchema } from '../../../proto/gen/envoy/config/cluster/v3/outlier_detection_pb.js'
import {
  type ClusterLoadAssignment,
  ClusterLoadAssignmentSchema,
} from '../../../proto/gen/envoy/config/endpoint/v3/endpoint_pb.js'
import { HttpProtocolOptionsSchema } from '../../../proto/gen/envoy/extensions/upstreams/http/v3/http_protocol_options_pb.js'
import type { InboundSpec } from '../../../proxy-spec/inbound.ts'
import type { OutboundSpec, Outliers } from '../../../proxy-spec/outbound.ts'
import type { Address } from '../../../runtime/config.ts'
import { trustDomainOf } from '../../../spiffe/id.ts'
import { durationOf, type Init, overAds, packed, socketAddress } from './extension.ts'
import { type Secrets, upstreamTls } from './tls.ts'

type ClusterInit = Init<typeof ClusterSchema>
type Speaks = 'http1' | 'http2' | 'either'

export const workloadCluster = (name: string): string => `workload/${name}`
/** The same workload, by HTTP/2: for gRPC. */
export const workloadHttp2Cluster = (name: string): string => `workload/${name}/http2`
export const peerCluster = (name: string): string => `peer/${name}`
// also the authority of its requests, which takes no slash
export const decisionsCluster = 'castellan_decisions'

const plenty = 1_000_000

/** milliseconds: the workload is on this machine */
const workloadConnect = 5_000

const upstreamProtocols = {
  http1: {
    case: 'explicitHttpConfig',
    value: { protocolConfig: { case: 'httpProtocolOptions', value: {} } },
  },
  http2: {
    case: 'explicitHttpConfig',
    value: { protocolConfig: { case: 'http2ProtocolOptions', value: {} } },
  },
  // as the peer chooses by ALPN
  either: { case: 'autoConfig', value: { httpProtocolOptions: {}, http2ProtocolOptions: {} } },
} as const

function httpOptions(speaks: Speaks, maxConnectionAge?: number): Record<string, Any> {
  const aged =
    maxConnectionAge === undefined
      ? {}
      : { commonHttpProtocolOptions: { maxConnectionDuration: durationOf(maxConnectionAge) } }
  return {
    'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': packed(HttpProtocolOptionsSchema, {
      upstreamProtocolOptions: upstreamProtocols[speaks],
      ...aged,
    }),
  }
}

export function assignment(
  clusterName: string,
  addresses: readonly Address[],
): ClusterLoadAssignment {
  const lbEndpoints = addresses.map((address) => ({
    hostIdentifier: {
      case: 'endpoint' as const,
      value: { address: socketAddress(address) },
    },
  }))
  return create(ClusterLoadAssignmentSchema, { clusterName, endpoints: [{ lbEndpoints }] })
}

/** Envoy's own limits are there for many clients of one server; the agent's and the workload's are their own. */
const unlimited: Init<typeof CircuitBreakersSchema> = {
  thresholds: [
    {
      maxConnections: plenty,
      maxPendingRequests: plenty,
      maxRequests: plenty,
      maxRetries: plenty,
    },
  ],
}

const isResolved = ({ host }: Address) => isIP(host) !== 0

/** Names are looked up by Envoy itself. */
function fixed(name: string, addresses: readonly Address[]): ClusterInit {
  const value = addresses.every(isResolved)
    ? Cluster_DiscoveryType.STATIC
    : Cluster_DiscoveryType.STRICT_DNS
  return {
    name,
    clusterDiscoveryType: { case: 'type', value },
    loadAssignment: assignment(name, addresses),
  }
}

export function workloadClusters({ protocol, forwardTo }: InboundSpec, name: string): Cluster[] {
  const cluster = (clusterName: string, speaks: Speaks | undefined) =>
    create(ClusterSchema, {
      ...fixed(clusterName, [forwardTo]),
      connectTimeout: durationOf(workloadConnect),
      circuitBreakers: unlimited,
      ...(speaks === undefined ? {} : { typedExtensionProtocolOptions: httpOptions(speaks) }),
    })
  switch (protocol) {
    case 'tcp':
      return [cluster(workloadCluster(name), undefined)]
    case 'grpc':
      return [cluster(workloadCluster(name), 'http2')]
    case 'http':
      return [cluster(workloadCluster(name), 'http1'), cluster(workloadHttp2Cluster(name), 'http2')]
  }
}

const balancing = {
  'least-request': Cluster_LbPolicy.LEAST_REQUEST,
  'round-robin': Cluster_LbPolicy.ROUND_ROBIN,
  random: Cluster_LbPolicy.RANDOM,
} as const

function outlierDetection(
  outliers: Outliers | undefined,
): Init<typeof OutlierDetectionSchema> | undefined {
  if (outliers === undefined) return undefined
  const { consecutiveFailures, interval, ejection, maxEjected } = outliers
  return {
    consecutive5xx: consecutiveFailures,
    enforcingConsecutive5xx: 100,
    enforcingConsecutiveGatewayFailure: 0,
    enforcingSuccessRate: 0,
    interval: durationOf(interval),
    baseEjectionTime: durationOf(ejection),
    maxEjectionPercent: maxEjected,
    alwaysEjectOneHost: true,
  }
}

/** Where requests go over the limit they are refused at once; a fifth of those under way may be asked again. */
function thresholds({ limits }: OutboundSpec): Init<typeof CircuitBreakersSchema> {
  const requests = limits.requests ?? plenty
  return {
    thresholds: [
      {
        maxConnections: limits.connections ?? plenty,
        maxRequests: requests,
        maxPendingRequests: requests,
        retryBudget: { budgetPercent: { value: 20 }, minRetryConcurrency: 3 },
      },
    ],
  }
}

const speaksTo = { http: 'either', grpc: 'http2', tcp: undefined } as const
const alpnTo = { http: ['h2', 'http/1.1'], grpc: ['h2'], tcp: [] } as const

export interface Peers {
  readonly name: string
  /** of the service, as they are known now */
  readonly endpoints: readonly Address[]
  readonly secrets: Secrets
  /** milliseconds */
  readonly maxConnectionAge: number
  /** see Cuts: another one leaves the connections of before */
  readonly cut: string
}

/** Of a service the addresses come beside (EDS), unless they are names that Envoy has to look up. */
export function isDiscovered({ service }: OutboundSpec, endpoints: readonly Address[]): boolean {
  return service !== undefined && endpoints.every(isResolved)
}

export function peersCluster(spec: OutboundSpec, peers: Peers): Cluster {
  const { name, endpoints, secrets, maxConnectionAge, cut } = peers
  const { protocol, expect, connectTimeout, loadBalancing, outliers } = spec
  const clusterName = peerCluster(name)
  const detection = outlierDetection(outliers)
  const speaks = speaksTo[protocol]
  const discovery: ClusterInit = isDiscovered(spec, endpoints)
    ? {
        name: clusterName,
        clusterDiscoveryType: { case: 'type', value: Cluster_DiscoveryType.EDS },
        edsClusterConfig: { edsConfig: overAds },
      }
    : fixed(clusterName, spec.destination ?? endpoints)
  return create(ClusterSchema, {
    ...discovery,
    ...(cut === '' ? {} : { metadata: { filterMetadata: { castellan: { cut } } } }),
    connectTimeout: durationOf(connectTimeout),
    lbPolicy: balancing[loadBalancing],
    circuitBreakers: thresholds(spec),
    transportSocket: upstreamTls(secrets, { expect, alpn: alpnTo[protocol] }),
    ...(detection === undefined ? {} : { outlierDetection: detection }),
    ...(speaks === undefined
      ? {}
      : { typedExtensionProtocolOptions: httpOptions(speaks, maxConnectionAge) }),
    // what a peer that has left the service still serves ends
    commonLbConfig: { closeConnectionsOnHostSetChange: false },
    ignoreHealthOnHostRemoval: true,
  })
}

/** Whether all that may be expected are of one trust domain: then its roots alone are believed. */
export function isOf({ expect }: OutboundSpec, domain: string): boolean {
  return expect.every((id) => trustDomainOf(id) === domain)
}

export function decisionCluster(socket: string): Cluster {
  return create(ClusterSchema, {
    name: decisionsCluster,
    clusterDiscoveryType: { case: 'type', value: Cluster_DiscoveryType.STATIC },
    connectTimeout: durationOf(1000),
    circuitBreakers: unlimited,
    typedExtensionProtocolOptions: httpOptions('http2'),
    loadAssignment: {
      clusterName: decisionsCluster,
      endpoints: [
        {
          lbEndpoints: [
            {
              hostIdentifier: {
                case: 'endpoint',
                value: { address: { address: { case: 'pipe', value: { path: socket } } } },
              },
            },
          ],
        },
      ],
    },
  })
}
