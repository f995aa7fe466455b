// The workload behind an Envoy that asks our agent: it says whom it was told.
import { createServer } from 'node:http'
import { createServer as createTcp } from 'node:net'

/** Says whom it was told, in HTTP or, to who says nothing, in bytes. */
export async function startBackend(): Promise<
  AsyncDisposable & { readonly http: number; readonly tcp: number }
> {
  const http = createServer({ keepAliveTimeout: 60_000 }, ({ headers }, response) =>
    response.end(`${headers['x-spiffe-peer-id']}`),
  )
  const tcp = createTcp((socket) => {
    socket.on('error', () => socket.destroy())
    socket.once('data', () => socket.end('welcome'))
  })
  const portOf = (server: typeof tcp) =>
    new Promise<number>((resolve) =>
      server.listen(0, '127.0.0.1', () => {
        const at = server.address()
        resolve(typeof at === 'object' && at !== null ? at.port : 0)
      }),
    )
  const [httpPort, tcpPort] = [await portOf(http), await portOf(tcp)]
  return {
    http: httpPort,
    tcp: tcpPort,
    async [Symbol.asyncDispose]() {
      http.closeAllConnections()
      for (const server of [http, tcp]) server.close()
    },
  }
}
