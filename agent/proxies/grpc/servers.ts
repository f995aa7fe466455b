// The server's side of a gRPC program: mutual TLS, and who may call. A change of either ends its connections gently.
import { create } from '@bufbuild/protobuf'
import {
  type Listener,
  ListenerSchema,
} from '../../../proto/gen/envoy/config/listener/v3/listener_pb.js'
import { HttpConnectionManagerSchema } from '../../../proto/gen/envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager_pb.js'
import type { Address } from '../../../runtime/config.ts'
import { socketAddress, typed } from '../envoy/extension.ts'
import { router } from './clients.ts'
import type { Judgement } from './filters.ts'
import { serverName } from './names.ts'
import { downstreamTls } from './tls.ts'

const managerName = 'envoy.filters.network.http_connection_manager'

/** The program serves by itself what its filters let through. */
const everything = {
  name: 'all',
  virtualHosts: [
    {
      name: 'all',
      domains: ['*'],
      routes: [
        {
          match: { pathSpecifier: { case: 'prefix', value: '' } as const },
          action: { case: 'nonForwardingAction', value: {} } as const,
        },
      ],
    },
  ],
}

/**
 * Policies stand in the listener, not in routes: one program finds those of routes by another name than the others
 * do, and would ignore them.
 */
export function serverListener(listen: Address, { filters }: Judgement): Listener {
  const name = serverName(listen)
  const manager = typed(managerName, HttpConnectionManagerSchema, {
    statPrefix: name,
    routeSpecifier: { case: 'routeConfig', value: everything },
    httpFilters: [...filters, router],
  })
  return create(ListenerSchema, {
    name,
    address: socketAddress(listen),
    filterChains: [{ name: 'mutual-tls', filters: [manager], transportSocket: downstreamTls() }],
  })
}
