// The bootstrap of a gRPC program that this agent configures: GRPC_XDS_BOOTSTRAP names a file with it.
import { provider, serverTemplate } from './names.ts'

export interface GrpcBootstrapOptions {
  /** the agent's public socket */
  readonly socket: string
  /** files that the agent writes: docs/files.md */
  readonly chain: string
  readonly key: string
  /** of the own trust domain, and of no other: what another one signs could show any identity */
  readonly roots: string
  /** seconds between two looks at the files */
  readonly refresh: number
  /** for people only: the agent knows a program by its process */
  readonly nodeId: string
}

/** As gRPC reads it, in JSON. */
export function grpcBootstrap(options: GrpcBootstrapOptions): object {
  const { socket, chain, key, roots, refresh, nodeId } = options
  return {
    // the socket says who is at its other end, and has no use for TLS
    xds_servers: [
      {
        server_uri: `unix:${socket}`,
        channel_creds: [{ type: 'insecure' }],
        server_features: ['xds_v3'],
      },
    ],
    node: { id: nodeId, cluster: 'castellan', locality: { region: '', zone: '', sub_zone: '' } },
    certificate_providers: {
      [provider]: {
        plugin_name: 'file_watcher',
        config: {
          certificate_file: chain,
          private_key_file: key,
          ca_certificate_file: roots,
          refresh_interval: `${refresh}s`,
        },
      },
    },
    server_listener_resource_name_template: serverTemplate,
  }
}
