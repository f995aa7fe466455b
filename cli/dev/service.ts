// A small HTTP service of the demonstration: it knows nothing of TLS or identities, its sidecar does.
import { createServer } from 'node:http'

export interface DemoService extends AsyncDisposable {
  readonly port: number
  /** requests that reached it */
  readonly served: number
}

/** Answers with what it was asked and who asked, as its sidecar said in the identity header. */
export async function startService(name: string): Promise<DemoService> {
  let served = 0
  const server = createServer((request, response) => {
    served++
    const caller = request.headers['x-spiffe-peer-id'] ?? null
    request.resume()
    response.setHeader('content-type', 'application/json')
    response.end(
      `${JSON.stringify({ service: name, method: request.method, path: request.url, caller })}\n`,
    )
  })
  server.keepAliveTimeout = 60_000
  server.listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const bound = server.address()
  return {
    port: typeof bound === 'object' && bound !== null ? bound.port : 0,
    get served() {
      return served
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
