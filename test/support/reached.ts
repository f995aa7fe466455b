// A backend that says what reached it, by HTTP/1.1 or by HTTP/2 without TLS.
import { once } from 'node:events'
import { createServer } from 'node:http'
import { createServer as createHttp2Server } from 'node:http2'
import { createServer as createTcpServer, type Socket } from 'node:net'

export interface Reached {
  readonly method: string
  readonly target: string
  /** names and values in turn, without those of the request line */
  readonly headers: readonly string[]
}

export interface Backend extends AsyncDisposable {
  readonly port: number
}

// nothing that a client is told of it is the backend's to say
const forged = { 'x-spiffe-peer-id': 'spiffe://forged.example/backend' }

function http1Into(reached: Reached[]) {
  const server = createServer((request, response) => {
    const { method = '', url: target = '', rawHeaders: headers } = request
    reached.push({ method, target, headers })
    response.writeHead(200, forged)
    response.end(target)
  })
  server.keepAliveTimeout = 60_000
  return server
}

function http2Into(reached: Reached[]) {
  const server = createHttp2Server()
  server.on('stream', (stream, headers, _, raw: readonly string[]) => {
    const { ':method': method = '', ':path': target = '' } = headers
    const rest = raw.filter((_, i) => raw[i - (i % 2)]?.startsWith(':') === false)
    reached.push({ method, target, headers: rest })
    const isCall = headers['content-type']?.startsWith('application/grpc') === true
    const answer = isCall ? { 'content-type': 'application/grpc', 'grpc-status': '0' } : {}
    stream.on('error', () => {})
    stream.respond({ ':status': 200, ...forged, ...answer }, { endStream: true })
  })
  return server
}

/** Puts into `reached` what it is asked, the newest last. */
export async function startReached(reached: Reached[]): Promise<Backend> {
  const [http1, http2] = [http1Into(reached), http2Into(reached)]
  const sockets = new Set<Socket>()
  const server = createTcpServer((socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
    socket.on('error', () => socket.destroy())
    // HTTP/2 begins with `PRI *`, which no HTTP/1.1 method does
    socket.once('data', (first: Buffer) => {
      socket.pause()
      socket.unshift(first)
      const isHttp2 = first.toString('latin1', 0, 3) === 'PRI'
      ;(isHttp2 ? http2 : http1).emit('connection', socket)
      if (!isHttp2) socket.resume()
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const bound = server.address()
  return {
    port: typeof bound === 'object' && bound !== null ? bound.port : 0,
    async [Symbol.asyncDispose]() {
      server.close()
      for (const socket of sockets) socket.destroy()
    },
  }
}
