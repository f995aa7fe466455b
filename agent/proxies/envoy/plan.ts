// A snapshot for people: Envoy's or gRPC's configuration as JSON, and who decides where.
import { createRegistry, type JsonValue, toJson } from '@bufbuild/protobuf'
import { AnySchema } from '@bufbuild/protobuf/wkt'
import { ClusterSchema } from '../../../proto/gen/envoy/config/cluster/v3/cluster_pb.js'
import { ClusterLoadAssignmentSchema } from '../../../proto/gen/envoy/config/endpoint/v3/endpoint_pb.js'
import { ListenerSchema } from '../../../proto/gen/envoy/config/listener/v3/listener_pb.js'
import { RouteConfigurationSchema } from '../../../proto/gen/envoy/config/route/v3/route_pb.js'
import {
  ExtAuthzPerRouteSchema,
  ExtAuthzSchema,
} from '../../../proto/gen/envoy/extensions/filters/http/ext_authz/v3/ext_authz_pb.js'
import {
  RBACPerRouteSchema,
  RBACSchema,
} from '../../../proto/gen/envoy/extensions/filters/http/rbac/v3/rbac_pb.js'
import { RouterSchema } from '../../../proto/gen/envoy/extensions/filters/http/router/v3/router_pb.js'
import { TlsInspectorSchema } from '../../../proto/gen/envoy/extensions/filters/listener/tls_inspector/v3/tls_inspector_pb.js'
import { ConnectionLimitSchema } from '../../../proto/gen/envoy/extensions/filters/network/connection_limit/v3/connection_limit_pb.js'
import { ExtAuthzSchema as NetworkExtAuthzSchema } from '../../../proto/gen/envoy/extensions/filters/network/ext_authz/v3/ext_authz_pb.js'
import { HttpConnectionManagerSchema } from '../../../proto/gen/envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager_pb.js'
import { TcpProxySchema } from '../../../proto/gen/envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy_pb.js'
import {
  DownstreamTlsContextSchema,
  UpstreamTlsContextSchema,
} from '../../../proto/gen/envoy/extensions/transport_sockets/tls/v3/tls_pb.js'
import { HttpProtocolOptionsSchema } from '../../../proto/gen/envoy/extensions/upstreams/http/v3/http_protocol_options_pb.js'
import { packedSchemas } from './matcher.ts'
import type { Resources, Snapshot } from './snapshot.ts'

const registry = createRegistry(
  ...packedSchemas,
  ...[ClusterSchema, ClusterLoadAssignmentSchema, ListenerSchema, RouteConfigurationSchema],
  ...[ExtAuthzPerRouteSchema, ExtAuthzSchema, RBACPerRouteSchema, RBACSchema, RouterSchema],
  ...[TlsInspectorSchema, ConnectionLimitSchema, NetworkExtAuthzSchema, TcpProxySchema],
  ...[HttpConnectionManagerSchema, HttpProtocolOptionsSchema],
  ...[DownstreamTlsContextSchema, UpstreamTlsContextSchema],
)

export interface EnvoyPlan {
  /** by the names of inbound listeners */
  readonly decisions: Readonly<
    Record<string, { readonly by: string; readonly reasons: readonly string[] }>
  >
  /** what is done otherwise than the spec says */
  readonly remarks: readonly string[]
  readonly clusters: readonly JsonValue[]
  readonly endpoints: readonly JsonValue[]
  readonly listeners: readonly JsonValue[]
  readonly routes: readonly JsonValue[]
}

const jsonOf = (resources: Resources): JsonValue[] =>
  [...resources.values()].map(({ pack }) =>
    toJson(AnySchema, pack(), { registry, useProtoFieldName: true }),
  )

export function planOf(snapshot: Snapshot): EnvoyPlan {
  const { enforcement, remarks = [], clusters, endpoints, listeners, routes } = snapshot
  return {
    decisions: Object.fromEntries(
      [...enforcement].map(([name, { by, reasons }]) => [name, { by, reasons }]),
    ),
    remarks,
    clusters: jsonOf(clusters),
    endpoints: jsonOf(endpoints),
    listeners: jsonOf(listeners),
    routes: jsonOf(routes),
  }
}
