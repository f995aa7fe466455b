// The configuration of an Envoy that asks our agent about each request and each connection, as its users write it.

export interface Ports {
  /** mutual TLS, HTTP */
  readonly http: number
  /** mutual TLS, bytes */
  readonly tcp: number
  readonly backend: number
  /** behind `tcp` */
  readonly bytes: number
}

export interface Tls {
  readonly chain: string
  readonly key: string
  readonly roots: string
}

const type = (name: string) => ({ '@type': `type.googleapis.com/${name}` })
const filters = 'envoy.extensions.filters'
const at = (port: number) => ({ socket_address: { address: '127.0.0.1', port_value: port } })

function cluster(name: string, address: object, more: object = {}) {
  const endpoints = [{ lb_endpoints: [{ endpoint: { address } }] }]
  return {
    ...{ name, type: 'STATIC', connect_timeout: '5s', ...more },
    load_assignment: { cluster_name: name, endpoints },
  }
}

/** HTTP/2, and as many retries at once as there may be questions: three is what Envoy has by itself. */
const agentOptions = {
  typed_extension_protocol_options: {
    'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
      ...type('envoy.extensions.upstreams.http.v3.HttpProtocolOptions'),
      explicit_http_config: {
        http2_protocol_options: { connection_keepalive: { interval: '30s', timeout: '5s' } },
      },
    },
  },
  circuit_breakers: {
    thresholds: [{ max_requests: 10_000, max_pending_requests: 10_000, max_retries: 10_000 }],
  },
}

const grpc = {
  envoy_grpc: { cluster_name: 'agent' },
  timeout: '2s',
  retry_policy: {
    num_retries: 8,
    retry_on: 'connect-failure,refused-stream,reset,unavailable,cancelled,gateway-error',
    retry_back_off: { base_interval: '0.025s', max_interval: '0.25s' },
  },
}

const common = (name: string) => ({
  ...type(name),
  transport_api_version: 'V3',
  stat_prefix: 'agent',
  include_peer_certificate: true,
  include_tls_session: true,
  grpc_service: grpc,
})

const httpFilters = [
  {
    name: 'envoy.filters.http.ext_authz',
    typed_config: {
      ...common(`${filters}.http.ext_authz.v3.ExtAuthz`),
      status_on_error: { code: 'ServiceUnavailable' },
      validate_mutations: true,
    },
  },
  {
    name: 'envoy.filters.http.router',
    typed_config: type(`${filters}.http.router.v3.Router`),
  },
]

function manager(port: number) {
  const extensions = { 'castellan.port': String(port) }
  return {
    ...type(`${filters}.network.http_connection_manager.v3.HttpConnectionManager`),
    ...{ stat_prefix: 'in', normalize_path: true, merge_slashes: true, use_remote_address: true },
    path_with_escaped_slashes_action: 'REJECT_REQUEST',
    route_config: {
      virtual_hosts: [
        {
          ...{ name: 'all', domains: ['*'] },
          routes: [{ match: { prefix: '/' }, route: { cluster: 'backend' } }],
          typed_per_filter_config: {
            'envoy.filters.http.ext_authz': {
              ...type(`${filters}.http.ext_authz.v3.ExtAuthzPerRoute`),
              check_settings: { context_extensions: extensions },
            },
          },
        },
      ],
    },
    http_filters: httpFilters,
  }
}

/** `agent` is the decision socket. */
export function authzBootstrap(
  { agent, admin, tls }: { agent: string; admin: string; tls: Tls },
  ports: Ports,
): object {
  const context = {
    ...type('envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext'),
    disable_stateless_session_resumption: true,
    disable_stateful_session_resumption: true,
    // who is believed is the agent's to say
    require_client_certificate: false,
    common_tls_context: {
      tls_certificates: [
        {
          certificate_chain: { inline_string: tls.chain },
          private_key: { inline_string: tls.key },
        },
      ],
      validation_context: { trusted_ca: { inline_string: tls.roots } },
    },
  }
  const listener = (name: string, port: number, list: readonly object[]) => ({
    ...{ name, address: at(port) },
    filter_chains: [
      {
        filters: list,
        transport_socket: { name: 'envoy.transport_sockets.tls', typed_config: context },
      },
    ],
  })
  return {
    node: { id: 'test~authz', cluster: 'test' },
    admin: { address: { pipe: { path: admin, mode: 0o600 } } },
    static_resources: {
      clusters: [
        cluster('agent', { pipe: { path: agent } }, agentOptions),
        cluster('backend', at(ports.backend)),
        cluster('bytes', at(ports.bytes)),
      ],
      listeners: [
        listener('http', ports.http, [
          {
            name: 'envoy.filters.network.http_connection_manager',
            typed_config: manager(8080),
          },
        ]),
        listener('tcp', ports.tcp, [
          {
            name: 'envoy.filters.network.ext_authz',
            typed_config: common(`${filters}.network.ext_authz.v3.ExtAuthz`),
          },
          {
            name: 'envoy.filters.network.tcp_proxy',
            typed_config: {
              ...type(`${filters}.network.tcp_proxy.v3.TcpProxy`),
              ...{ stat_prefix: 'tcp', cluster: 'bytes' },
            },
          },
        ]),
      ],
    },
  }
}
