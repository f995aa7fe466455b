// Closed-loop load over mutual TLS in a process of its own: each connection asks again once answered.
import { once } from 'node:events'
import { connect, type TLSSocket } from 'node:tls'

export interface Order {
  readonly port: number
  readonly connections: number
  readonly requests: number
  readonly cert: string
  readonly key: string
  readonly root: string
}

const question = Buffer.from('GET / HTTP/1.1\r\nHost: bench\r\n\r\n')

function isOrder(value: unknown): value is Order {
  return typeof value === 'object' && value !== null && 'port' in value && 'requests' in value
}

async function open({ port, cert, key, root }: Order): Promise<TLSSocket> {
  const checkServerIdentity = (_: string, peer: { subjectaltname?: string }) =>
    peer.subjectaltname?.startsWith('URI:spiffe://') ? undefined : new Error('not the proxy')
  const socket = connect({ host: '127.0.0.1', port, cert, key, ca: root, checkServerIdentity })
  await once(socket, 'secureConnect')
  socket.setNoDelay(true)
  return socket
}

/** The length of one answer, which all share. */
async function answerLength(socket: TLSSocket): Promise<number> {
  socket.write(question)
  let text = ''
  for (;;) {
    const [part] = await once(socket, 'data')
    text += part.toString('latin1')
    const head = text.indexOf('\r\n\r\n')
    const length = Number(/content-length: (\d+)/i.exec(text)?.[1])
    if (head >= 0 && text.length === head + 4 + length) return text.length
  }
}

interface Opened {
  readonly sockets: readonly TLSSocket[]
  /** bytes of one answer */
  readonly length: number
}

// connections outlive an order, so that handshakes are no part of what is measured
const opened = new Map<number, Opened>()

async function connectionsFor(order: Order): Promise<Opened> {
  const known = opened.get(order.port)
  if (known !== undefined) return known
  const sockets = await Promise.all(Array.from({ length: order.connections }, () => open(order)))
  const [first] = sockets
  if (first === undefined) throw new RangeError('no connection')
  const made = { sockets, length: await answerLength(first) }
  opened.set(order.port, made)
  return made
}

/** Sends the requests of the order; resolves with the milliseconds they took. */
async function serve(order: Order): Promise<number> {
  const { sockets, length } = await connectionsFor(order)
  let left = order.requests
  const started = performance.now()
  const ends = sockets.map((socket) => {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    let missing = 0
    const ask = () => {
      if (left-- <= 0) return resolve()
      missing = length
      socket.write(question)
    }
    socket.removeAllListeners('data')
    socket.on('data', (part) => {
      missing -= part.length
      if (missing === 0) ask()
    })
    socket.once('close', () => reject(new Error('the proxy hung up')))
    ask()
    return promise
  })
  await Promise.all(ends)
  const ms = performance.now() - started
  for (const socket of sockets) socket.removeAllListeners('close')
  return ms
}

process.on('message', async (message) => {
  if (!isOrder(message)) throw new TypeError('no order')
  process.send?.({ ms: await serve(message) })
})
process.once('disconnect', () => process.exit())
