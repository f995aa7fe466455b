// The bootstrap of an Envoy that this agent drives: everything else comes over the agent's socket.
export interface BootstrapOptions {
  /** the agent's public socket */
  readonly socket: string
  /** Envoy's administration, mode 0600; never TCP: who reaches it reads keys and stops Envoy */
  readonly admin: string
  /** for people only: the agent knows an Envoy by its process */
  readonly nodeId: string
  readonly delta: boolean
}

const httpOptions = 'envoy.extensions.upstreams.http.v3.HttpProtocolOptions'

/**
 * Who has an agent again is told by it at once: left to itself Envoy waits for up to half a minute, and decides by
 * former policies as long.
 */
const retry_policy = { retry_back_off: { base_interval: '0.1s', max_interval: '2s' } }

/** As Envoy reads it, in JSON or YAML. */
export function envoyBootstrap({ socket, admin, nodeId, delta }: BootstrapOptions) {
  const ads = { resource_api_version: 'V3', ads: {} }
  const endpoint = { address: { pipe: { path: socket } } }
  return {
    node: { id: nodeId, cluster: 'castellan' },
    admin: { address: { pipe: { path: admin, mode: 0o600 } } },
    dynamic_resources: {
      lds_config: ads,
      cds_config: ads,
      ads_config: {
        api_type: delta ? 'DELTA_GRPC' : 'GRPC',
        transport_api_version: 'V3',
        set_node_on_first_message_only: true,
        grpc_services: [{ envoy_grpc: { cluster_name: 'castellan_agent', retry_policy } }],
      },
    },
    static_resources: {
      clusters: [
        {
          name: 'castellan_agent',
          type: 'STATIC',
          connect_timeout: '1s',
          typed_extension_protocol_options: {
            [httpOptions]: {
              '@type': `type.googleapis.com/${httpOptions}`,
              explicit_http_config: {
                http2_protocol_options: {
                  connection_keepalive: { interval: '30s', timeout: '5s' },
                },
              },
            },
          },
          load_assignment: {
            cluster_name: 'castellan_agent',
            endpoints: [{ lb_endpoints: [{ endpoint }] }],
          },
        },
      ],
    },
  }
}
