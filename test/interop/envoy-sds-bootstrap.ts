// The configuration of an Envoy that gets its certificates from our agent, as its users write it.

export interface Way {
  readonly name: string
  readonly api: 'GRPC' | 'DELTA_GRPC'
  /** of the node */
  readonly metadata: Readonly<Record<string, boolean>>
  /** of own certificate and validation context, for each direction */
  readonly inbound: readonly [string, string]
  readonly outbound: readonly [string, string]
}

export interface Ports {
  /** mutual TLS, to the backend */
  readonly inbound: number
  /** plain, to `inbound` by mutual TLS */
  readonly outbound: number
  /** as `inbound`, with a certificate that there is not at first */
  readonly late: number
  readonly backend: number
}

const type = (name: string) => ({ '@type': `type.googleapis.com/${name}` })
const tls = 'envoy.extensions.transport_sockets.tls.v3'
const at = (port: number) => ({ socket_address: { address: '127.0.0.1', port_value: port } })

function cluster(name: string, address: object, more: object = {}) {
  const endpoints = [{ lb_endpoints: [{ endpoint: { address } }] }]
  return {
    ...{ name, type: 'STATIC', connect_timeout: '5s', ...more },
    load_assignment: { cluster_name: name, endpoints },
  }
}

function httpOptions(more: object) {
  const name = 'envoy.extensions.upstreams.http.v3.HttpProtocolOptions'
  return { typed_extension_protocol_options: { [name]: { ...type(name), ...more } } }
}

function listener(name: string, port: number, target: string, transportSocket: object = {}) {
  const manager = {
    ...type('envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager'),
    stat_prefix: name,
    forward_client_cert_details: 'SANITIZE_SET',
    set_current_client_cert_details: { uri: true },
    route_config: {
      virtual_hosts: [
        {
          ...{ name: 'all', domains: ['*'] },
          routes: [{ match: { prefix: '/' }, route: { cluster: target } }],
        },
      ],
    },
    http_filters: [
      {
        name: 'envoy.filters.http.router',
        typed_config: type('envoy.extensions.filters.http.router.v3.Router'),
      },
    ],
  }
  const filters = [{ name: 'envoy.filters.network.http_connection_manager', typed_config: manager }]
  return { name, address: at(port), filter_chains: [{ filters, ...transportSocket }] }
}

const socketOf = (context: object) => ({
  transport_socket: { name: 'envoy.transport_sockets.tls', typed_config: context },
})

/** `socket` is the agent's; `id` the identity that the other side of `outbound` has to show. */
export function bootstrapOf(
  way: Way,
  { socket, admin, id }: { socket: string; admin: string; id: string },
  ports: Ports,
): object {
  const secret = (name: string) => ({
    name,
    sds_config: {
      resource_api_version: 'V3',
      // what is not there yet holds nobody up for long
      initial_fetch_timeout: '2s',
      api_config_source: {
        api_type: way.api,
        transport_api_version: 'V3',
        set_node_on_first_message_only: true,
        grpc_services: [{ envoy_grpc: { cluster_name: 'agent' } }],
      },
    },
  })
  const inbound = (certificate: string, context: string) =>
    socketOf({
      ...type(`${tls}.DownstreamTlsContext`),
      require_client_certificate: true,
      disable_stateless_session_resumption: true,
      disable_stateful_session_resumption: true,
      common_tls_context: {
        tls_certificate_sds_secret_configs: [secret(certificate)],
        validation_context_sds_secret_config: secret(context),
      },
    })
  const outbound = (certificate: string, context: string) =>
    socketOf({
      ...type(`${tls}.UpstreamTlsContext`),
      max_session_keys: 0,
      common_tls_context: {
        tls_certificate_sds_secret_configs: [secret(certificate)],
        combined_validation_context: {
          default_validation_context: {
            match_typed_subject_alt_names: [{ san_type: 'URI', matcher: { exact: id } }],
          },
          validation_context_sds_secret_config: secret(context),
        },
      },
    })
  const http2 = { explicit_http_config: { http2_protocol_options: {} } }
  // each request makes a connection of its own
  const once = {
    explicit_http_config: { http_protocol_options: {} },
    common_http_protocol_options: { max_requests_per_connection: 1 },
  }
  return {
    node: { id: `test~${way.name}`, cluster: 'test', metadata: way.metadata },
    admin: { address: { pipe: { path: admin, mode: 0o600 } } },
    static_resources: {
      clusters: [
        cluster('agent', { pipe: { path: socket } }, httpOptions(http2)),
        cluster('backend', at(ports.backend)),
        cluster('peer', at(ports.inbound), { ...httpOptions(once), ...outbound(...way.outbound) }),
      ],
      listeners: [
        listener('inbound', ports.inbound, 'backend', inbound(...way.inbound)),
        listener('outbound', ports.outbound, 'peer'),
        listener('late', ports.late, 'backend', inbound(`${id}/late`, way.inbound[1])),
      ],
    },
  }
}
