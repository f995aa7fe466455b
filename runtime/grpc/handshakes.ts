// TLS handshakes a few at a time: when thousands of clients come back at once, all of them together would
// time out after the work was done. Who waits too long is sent away before any work was spent.
import net from 'node:net'
import type tls from 'node:tls'

export interface HandshakeLimits {
  /** in progress at once */
  readonly most: number
  /** waiting for their turn; the next one is sent away */
  readonly waiting: number
  /** milliseconds that one waits before it is sent away, or that it may say nothing at all */
  readonly patience: number
  /** milliseconds after which one that does not come to an end holds up nobody else */
  readonly turn: number
}

export const usualHandshakes: HandshakeLimits = {
  most: 64,
  waiting: 8192,
  patience: 15_000,
  turn: 2000,
}

interface Waiting {
  readonly socket: net.Socket
  readonly since: number
}

const nameOf = ({ remoteAddress, remotePort }: net.Socket) => `${remoteAddress}:${remotePort}`

/** A listener that hands its connections to `server`, which itself does not listen. */
export function admitInTurn(
  server: tls.Server,
  options: net.ServerOpts,
  { most, waiting, patience, turn }: HandshakeLimits = usualHandshakes,
): net.Server {
  const queue: Waiting[] = []
  const inProgress = new Set<string>()

  function begin(socket: net.Socket): void {
    const name = nameOf(socket)
    inProgress.add(name)
    const late = setTimeout(done, turn, name)
    socket.once('close', () => {
      clearTimeout(late)
      done(name)
    })
    server.emit('connection', socket)
  }

  function next(): void {
    while (inProgress.size < most) {
      const first = queue.shift()
      if (first === undefined) return
      if (first.socket.destroyed) continue
      if (performance.now() - first.since > patience) first.socket.destroy()
      else begin(first.socket)
    }
  }

  function admit(socket: net.Socket): void {
    if (inProgress.size < most) begin(socket)
    else if (queue.length < waiting) queue.push({ socket, since: performance.now() })
    else socket.destroy()
  }

  function done(name: string): void {
    if (inProgress.delete(name)) next()
  }

  server.on('secureConnection', (socket) => done(nameOf(socket)))
  server.on('tlsClientError', (_, socket) => done(nameOf(socket)))
  return net.createServer({ ...options, pauseOnConnect: true }, (socket) => {
    // nobody else listens for it before the handshake begins
    socket.on('error', () => {})
    // who says nothing takes nobody's turn
    const silent = setTimeout(() => socket.destroy(), patience)
    socket.once('close', () => clearTimeout(silent))
    socket.once('readable', () => {
      clearTimeout(silent)
      admit(socket)
    })
  })
}
