// The child process of the storm's peer: a TLS server that shakes hands and does nothing else.
import { createServer } from 'node:tls'

const [cert = '', key = ''] = process.argv.slice(2)
const server = createServer({ cert, key, ALPNProtocols: ['h2'] }, (socket) => {
  socket.on('error', () => {})
  socket.end()
})
server.on('tlsClientError', (_, socket) => socket.destroy())
server.listen(0, '127.0.0.1', () => {
  const bound = server.address()
  process.send?.(typeof bound === 'object' && bound !== null ? bound.port : 0)
})
process.once('disconnect', () => process.exit())
