// What the storm is measured against: bare TLS handshakes per second between two processes of this machine.
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { connect, createSecureContext } from 'node:tls'
import { makeTestTls } from '../../test/support/test-tls.ts'
import { each } from '../agents/crowd.ts'

const handshakes = 2000
const inFlight = 64

export async function handshakesPerSecond(): Promise<number> {
  const { ca, cert, key } = await makeTestTls()
  const child = fork(join(import.meta.dirname, 'tls-server.ts'), [cert, key])
  const gone = once(child, 'exit')
  try {
    const [port] = await once(child, 'message')
    const secureContext = createSecureContext({ ca })
    const options = { host: 'localhost', port: Number(port), secureContext }
    const began = performance.now()
    await each(handshakes, inFlight, async () => {
      const socket = connect({ ...options, ALPNProtocols: ['h2'] })
      await once(socket, 'secureConnect')
      socket.destroy()
    })
    return (handshakes * 1000) / (performance.now() - began)
  } finally {
    child.kill()
    await gone
  }
}
