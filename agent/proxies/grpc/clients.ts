// The client's side of a gRPC program: whom it reaches by each name that it dials.
import { isIP } from 'node:net'
import { create } from '@bufbuild/protobuf'
import {
  type Cluster,
  Cluster_DiscoveryType,
  Cluster_LbPolicy,
  ClusterSchema,
} from '../../../proto/gen/envoy/config/cluster/v3/cluster_pb.js'
import {
  type ClusterLoadAssignment,
  ClusterLoadAssignmentSchema,
} from '../../../proto/gen/envoy/config/endpoint/v3/endpoint_pb.js'
import {
  type Listener,
  ListenerSchema,
} from '../../../proto/gen/envoy/config/listener/v3/listener_pb.js'
import {
  type RouteConfiguration,
  RouteConfigurationSchema,
} from '../../../proto/gen/envoy/config/route/v3/route_pb.js'
import { RouterSchema } from '../../../proto/gen/envoy/extensions/filters/http/router/v3/router_pb.js'
import { HttpConnectionManagerSchema } from '../../../proto/gen/envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager_pb.js'
import type { OutboundSpec } from '../../../proxy-spec/outbound.ts'
import { type Address, addressText } from '../../../runtime/config.ts'
import { durationOf, type Init, overAds, packed, socketAddress, typed } from '../envoy/extension.ts'
import { clusterName, routesName } from './names.ts'
import { upstreamTls } from './tls.ts'

/** gRPC's own limit would be 1024 */
const plenty = 1_000_000

export const router = typed('router', RouterSchema, {})

export function clientListener(name: string): Listener {
  const manager = packed(HttpConnectionManagerSchema, {
    statPrefix: name,
    routeSpecifier: {
      case: 'rds',
      value: { routeConfigName: routesName(name), configSource: overAds },
    },
    httpFilters: [router],
  })
  return create(ListenerSchema, { name, apiListener: { apiListener: manager } })
}

/** What has not left the program is asked again without being told to; else only what gRPC calls unavailable. */
function retryPolicy({ retries: { on, attempts, backoff } }: OutboundSpec) {
  if (attempts === 0 || !on.includes('unavailable')) return {}
  const retryBackOff = { baseInterval: durationOf(backoff), maxInterval: durationOf(backoff * 10) }
  return { retryPolicy: { retryOn: 'unavailable', numRetries: attempts, retryBackOff } }
}

export function clientRoutes(spec: OutboundSpec, name: string): RouteConfiguration {
  const { timeout } = spec
  const limit = timeout === undefined ? {} : { maxStreamDuration: durationOf(timeout) }
  const value = {
    clusterSpecifier: { case: 'cluster', value: clusterName(name) } as const,
    maxStreamDuration: limit,
    ...retryPolicy(spec),
  }
  return create(RouteConfigurationSchema, {
    name: routesName(name),
    virtualHosts: [
      {
        name: 'all',
        domains: ['*'],
        routes: [
          {
            name: 'all',
            match: { pathSpecifier: { case: 'prefix', value: '' } },
            action: { case: 'route', value },
          },
        ],
      },
    ],
  })
}

/** Each address once, and a locality with a weight: without either a program refuses all of them, or uses none. */
export function endpoints(name: string, addresses: readonly Address[]): ClusterLoadAssignment {
  const distinct = [...new Map(addresses.map((it) => [addressText(it), it])).values()]
  const lbEndpoints = distinct.map((address) => ({
    hostIdentifier: {
      case: 'endpoint' as const,
      value: { address: socketAddress(address) },
    },
  }))
  return create(ClusterLoadAssignmentSchema, {
    clusterName: name,
    endpoints: [{ locality: {}, loadBalancingWeight: 1, lbEndpoints }],
  })
}

/** A name is looked up by the program itself; addresses come beside. */
export const isLookedUp = (addresses: readonly Address[]): boolean =>
  addresses.some(({ host }) => isIP(host) === 0)

function discovery(name: string, addresses: readonly Address[]): Init<typeof ClusterSchema> {
  if (isLookedUp(addresses)) {
    return {
      clusterDiscoveryType: { case: 'type', value: Cluster_DiscoveryType.LOGICAL_DNS },
      loadAssignment: endpoints(name, addresses),
    }
  }
  return {
    clusterDiscoveryType: { case: 'type', value: Cluster_DiscoveryType.EDS },
    edsClusterConfig: { edsConfig: overAds, serviceName: name },
  }
}

export function clientCluster(
  { expect, limits }: OutboundSpec,
  dialled: string,
  addresses: readonly Address[],
): Cluster {
  const name = clusterName(dialled)
  return create(ClusterSchema, {
    name,
    ...discovery(name, addresses),
    // the one that every gRPC knows
    lbPolicy: Cluster_LbPolicy.ROUND_ROBIN,
    circuitBreakers: { thresholds: [{ maxRequests: limits.requests ?? plenty }] },
    transportSocket: upstreamTls(expect),
  })
}
