// An Envoy with the settings of proxies.md §2.2 that decides by lowered policies alone.
import { filterJson, rbacFilters } from '../../agent/proxies/envoy/rbac.ts'
import type { Lowered } from '../../policies/lower/lower.ts'

export interface Listener {
  readonly name: string
  readonly port: number
  readonly lowered: Lowered
  readonly trustedHops: number
  /** PEM; undefined takes plaintext */
  readonly tls?: { readonly chain: string; readonly key: string; readonly roots: string }
}

const type = (name: string) => ({ '@type': `type.googleapis.com/${name}` })
const at = (port: number) => ({ socket_address: { address: '127.0.0.1', port_value: port } })
const inline = (text: string) => ({ inline_string: text })

function tlsOf({ chain, key, roots }: NonNullable<Listener['tls']>): object {
  return {
    name: 'envoy.transport_sockets.tls',
    typed_config: {
      ...type('envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext'),
      require_client_certificate: true,
      disable_stateless_session_resumption: true,
      disable_stateful_session_resumption: true,
      common_tls_context: {
        tls_certificates: [{ certificate_chain: inline(chain), private_key: inline(key) }],
        validation_context: { trusted_ca: inline(roots) },
      },
    },
  }
}

function listenerOf({ name, port, lowered, trustedHops, tls }: Listener): object {
  const router = {
    name: 'envoy.filters.http.router',
    typed_config: type('envoy.extensions.filters.http.router.v3.Router'),
  }
  const manager = {
    ...type('envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager'),
    stat_prefix: name,
    use_remote_address: true,
    xff_num_trusted_hops: trustedHops,
    normalize_path: true,
    merge_slashes: !lowered.demands.includes('plain-slashes'),
    path_with_escaped_slashes_action: 'REJECT_REQUEST',
    common_http_protocol_options: { headers_with_underscores_action: 'REJECT_REQUEST' },
    route_config: {
      virtual_hosts: [
        {
          ...{ name: 'all', domains: ['*'] },
          routes: [{ match: { prefix: '/' }, route: { cluster: 'backend' } }],
        },
      ],
    },
    http_filters: [...rbacFilters(lowered).map(filterJson), router],
  }
  const filters = [{ name: 'envoy.filters.network.http_connection_manager', typed_config: manager }]
  const chain = { filters, ...(tls === undefined ? {} : { transport_socket: tlsOf(tls) }) }
  return { name, address: at(port), filter_chains: [chain] }
}

export function rbacBootstrap(
  listeners: readonly Listener[],
  { admin, backend }: { readonly admin: string; readonly backend: number },
): object {
  const endpoints = [{ lb_endpoints: [{ endpoint: { address: at(backend) } }] }]
  return {
    node: { id: 'test~rbac', cluster: 'test' },
    admin: { address: { pipe: { path: admin, mode: 0o600 } } },
    static_resources: {
      clusters: [
        {
          ...{ name: 'backend', type: 'STATIC', connect_timeout: '5s' },
          load_assignment: { cluster_name: 'backend', endpoints },
        },
      ],
      listeners: listeners.map(listenerOf),
    },
  }
}
