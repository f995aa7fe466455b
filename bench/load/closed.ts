// A load that waits for each answer before it asks again, over mutual TLS connections that stay open, and the backend
// that answers: together in a process of their own, so that neither is counted.
import { createServer } from 'node:net'
import { connect } from 'node:tls'
import { percentile } from '../measure.ts'

export interface Closed {
  readonly port: number
  readonly connections: number
  /** milliseconds */
  readonly time: number
  /** PEM */
  readonly cert: string
  readonly key: string
  readonly ca: string
}

export interface ClosedResult {
  readonly requests: number
  readonly failed: number
  /** milliseconds */
  readonly p50: number
  readonly p99: number
}

const question = 'GET /ok HTTP/1.1\r\nhost: shop.example\r\n\r\n'
const answer = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok'

function isClosed(value: unknown): value is Closed {
  return typeof value === 'object' && value !== null && 'connections' in value && 'cert' in value
}

/** The length of a whole answer at the start of `text`; 0 while it is not whole. */
function answered(text: string): number {
  const end = text.indexOf('\r\n\r\n')
  if (end < 0) return 0
  const length = Number(/\r\ncontent-length: (\d+)/i.exec(text.slice(0, end))?.[1] ?? 0)
  return text.length < end + 4 + length ? 0 : end + 4 + length
}

async function ask(load: Closed, until: number, times: number[]): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>()
  const { port, cert, key, ca } = load
  const options = { host: '127.0.0.1', port, cert, key, ca, checkServerIdentity: () => undefined }
  let [text, began, failed] = ['', 0, 0]
  const socket = connect(options, () => {
    began = performance.now()
    socket.write(question)
  })
  socket.on('error', reject)
  socket.on('data', (chunk) => {
    text += chunk.toString('latin1')
    const length = answered(text)
    if (length === 0) return
    const now = performance.now()
    times.push(now - began)
    if (!text.startsWith('HTTP/1.1 200')) failed++
    text = text.slice(length)
    began = now
    if (now < until) {
      socket.write(question)
      return
    }
    socket.destroy()
    resolve(failed)
  })
  return await promise
}

async function run(load: Closed): Promise<ClosedResult> {
  const times: number[] = []
  const until = performance.now() + load.time
  const all = Array.from({ length: load.connections }, () => ask(load, until, times))
  const failed = (await Promise.all(all)).reduce((sum, it) => sum + it, 0)
  const [p50, p99] = [percentile(times, 0.5), percentile(times, 0.99)]
  return { requests: times.length, failed, p50, p99 }
}

process.on('message', async (message) => {
  if (isClosed(message)) process.send?.(await run(message))
})
const backend = createServer((socket) => {
  socket.on('error', () => socket.destroy())
  socket.on('data', () => socket.write(answer))
}).listen(0, '127.0.0.1', () => {
  const bound = backend.address()
  process.send?.({ port: typeof bound === 'object' && bound !== null ? bound.port : 0 })
})
