// What a gRPC call costs our server, and what it costs grpc-js: CPU of the server's process alone.
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import http2, { type ClientHttp2Session } from 'node:http2'
import { join } from 'node:path'
import { create, toBinary } from '@bufbuild/protobuf'
import { EchoRequestSchema } from '../proto/gen/castellan/test/v1/echo_pb.js'
import { encodeFrame } from '../runtime/grpc/frame.ts'
import { makeTestTls, type TestTls } from '../test/support/test-tls.ts'
import { type Bench, type BenchResult, interleave, rounded } from './measure.ts'

const names = ['castellan', 'grpc-js'] as const
const goal = 0.9
const rounds = 75
const warmUp = 20
const calls = 128
const inFlight = 32
const streams = 4
const messages = 500
const text = 'x'.repeat(100)

interface Subject extends AsyncDisposable {
  readonly name: string
  readonly session: ClientHttp2Session
  /** microseconds used so far */
  cpu(): Promise<number>
}

async function answer(child: ChildProcess): Promise<number> {
  const [value] = await once(child, 'message')
  if (typeof value !== 'number') throw new TypeError(`the server said ${value}`)
  return value
}

async function startSubject(name: string, { ca, cert, key }: TestTls): Promise<Subject> {
  const child = fork(join(import.meta.dirname, 'grpc-server.ts'), [name, cert, key])
  const port = await answer(child)
  const session = http2.connect(`https://localhost:${port}`, { ca })
  await once(session, 'connect')
  session.setLocalWindowSize(1 << 20)
  return {
    name,
    session,
    cpu() {
      const value = answer(child)
      child.send('cpu')
      return value
    },
    async [Symbol.asyncDispose]() {
      session.destroy()
      const gone = once(child, 'exit')
      child.kill()
      await gone
    },
  }
}

/** One call, prebuilt bytes out and bytes thrown away; gives how many came. */
function call(session: ClientHttp2Session, method: string, body: Uint8Array): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>()
  const stream = session.request({
    ':method': 'POST',
    ':path': `/castellan.test.v1.Echo/${method}`,
    'content-type': 'application/grpc',
    te: 'trailers',
  })
  let bytes = 0
  let status: unknown
  stream.on('data', (chunk: Buffer) => (bytes += chunk.length))
  stream.on('trailers', (trailers) => (status = trailers['grpc-status']))
  stream.on('error', reject)
  stream.on('close', () =>
    status === '0' ? resolve(bytes) : reject(new Error(`${method}: status ${status}`)),
  )
  stream.end(body)
  return promise
}

const unaryBody = encodeFrame(toBinary(EchoRequestSchema, create(EchoRequestSchema, { text })))
const expandBody = encodeFrame(
  toBinary(EchoRequestSchema, create(EchoRequestSchema, { text, count: messages })),
)

async function unaryRound({ session, cpu }: Subject): Promise<number> {
  const before = await cpu()
  let left = calls
  async function caller() {
    while (left-- > 0) await call(session, 'Unary', unaryBody)
  }
  await Promise.all(Array.from({ length: inFlight }, caller))
  return ((await cpu()) - before) / calls
}

async function streamRound({ session, cpu }: Subject): Promise<number> {
  const before = await cpu()
  const sizes = await Promise.all(
    Array.from({ length: streams }, () => call(session, 'Expand', expandBody)),
  )
  // number 0 is not written, so a message is at least 107 bytes with its prefix
  if (sizes.some((size) => size < messages * 107)) throw new Error('messages are missing')
  return ((await cpu()) - before) / (streams * messages)
}

async function compare(
  what: string,
  subjects: readonly Subject[],
  round: (subject: Subject) => Promise<number>,
) {
  const competitors = subjects.map((subject) => ({ name: subject.name, run: () => round(subject) }))
  const [ours = Number.NaN, peer = Number.NaN] = await interleave(competitors, rounds, warmUp)
  return { what, ours, peer, ratio: ours / peer }
}

async function run(): Promise<BenchResult> {
  await using stack = new AsyncDisposableStack()
  const tls = await makeTestTls()
  const subjects: Subject[] = []
  for (const name of names) subjects.push(stack.use(await startSubject(name, tls)))
  const results = [
    await compare('unary call', subjects, unaryRound),
    await compare('streamed message', subjects, streamRound),
  ]
  const worst = Math.max(...results.map(({ ratio }) => ratio))
  return {
    rows: results.map(({ what, ours, peer, ratio }) => ({
      'server CPU, µs': what,
      castellan: rounded(ours),
      'grpc-js': rounded(peer),
      ratio: rounded(ratio),
    })),
    figure: rounded(worst),
    unit: '× the CPU of grpc-js, the worse of unary call and streamed message',
    goal,
    peer: { name: 'grpc-js', figure: 1 },
    ok: worst <= goal,
  }
}

export const grpcBench: Bench = { name: 'grpc', run }
