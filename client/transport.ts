// gRPC to a socket on this machine, without TLS: the agent's and the authority's unix sockets.
import { connect as connectSocket } from 'node:net'
import type { Interceptor, Transport } from '@connectrpc/connect'
import { createGrpcTransport } from '@connectrpc/connect-node'
import type { Endpoint } from './endpoint.ts'
import { createHttp2Sessions } from './http2-sessions.ts'

export interface LocalTransport extends Disposable {
  readonly transport: Transport
}

/** A transport that is to be disposed: its connection stays open until then. */
export function openTransport(
  endpoint: Endpoint,
  { interceptors = [] }: { readonly interceptors?: Interceptor[] } = {},
): LocalTransport {
  const baseUrl = 'http://localhost'
  const sessionManager = createHttp2Sessions(baseUrl, {
    createConnection: () =>
      endpoint.kind === 'unix'
        ? connectSocket(endpoint.path)
        : connectSocket({ host: endpoint.host, port: endpoint.port }),
  })
  return {
    transport: createGrpcTransport({ baseUrl, sessionManager, interceptors }),
    [Symbol.dispose]: () => sessionManager[Symbol.dispose](),
  }
}

/** The security header of the Workload API (Workload Endpoint §6). */
export const securityHeader: Interceptor = (next) => (request) => {
  request.header.set('workload.spiffe.io', 'true')
  return next(request)
}
