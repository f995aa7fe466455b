// Questions by the thousand: HTTP/2 made by hand, so that who asks costs as little as it can, beside the policies
// that they are decided by.
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { create, toBinary } from '@bufbuild/protobuf'
import { CheckRequestSchema } from '../proto/gen/envoy/service/auth/v3/external_auth_pb.js'
import { encodeFrame } from '../runtime/grpc/frame.ts'
import { rpc } from '../test/agent/authz/asking.ts'
import { frame, types } from '../test/support/frames.ts'

export const method = '/envoy.service.auth.v3.Authorization/Check'
export const policyCount = 10_000

const perFile = 1000

const callerOf = (i: number) => `example.org/ns/shop/sa/client-${i}`
const prefixOf = (i: number) => `/api/${i}/`

/** Each allows one caller one part of the paths. */
export function policyFiles(): { name: string; text: string }[] {
  const document = (i: number) => {
    const from = `from: [{ source: { principals: [${callerOf(i)}] } }]`
    const to = `to: [{ operation: { methods: [GET], paths: [${prefixOf(i)}*] } }]`
    return `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: p${i}, namespace: shop }
spec: { rules: [{ ${from}, ${to} }] }
`
  }
  return Array.from({ length: policyCount / perFile }, (_, part) => ({
    name: `part-${part}.yaml`,
    text: Array.from({ length: perFile }, (__, i) => document(part * perFile + i)).join('---\n'),
  }))
}

/** The same by caller, as a policy in Rego finds them soonest. */
export function policyRules() {
  const ruleOf = (i: number) => ({ path: prefixOf(i), methods: ['GET'] })
  return Object.fromEntries(
    Array.from({ length: policyCount }, (_, i) => [callerOf(i), [ruleOf(i)]]),
  )
}

/** A request as Envoy tells of it, of a caller with that certificate (PEM, URL-encoded). */
export function question(certificate: string, path = '/api/5000/items?page=2'): Uint8Array {
  const check = rpc(path, {
    certificate,
    principal: 'spiffe://example.org/ns/shop/sa/payments',
    headers: {
      'user-agent': 'Mozilla/5.0 (X11; Linux x86_64)',
      accept: 'text/html,application/json;q=0.9',
      'accept-encoding': 'gzip, deflate, br',
      'x-forwarded-for': '127.0.0.1',
      traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
    },
    extensions: { 'castellan.port': '8080' },
  })
  return encodeFrame(toBinary(CheckRequestSchema, create(CheckRequestSchema, check)))
}

const fields: readonly (readonly [string, string])[] = [
  [':path', method],
  [':authority', 'agent'],
  ['te', 'trailers'],
  ['content-type', 'application/grpc'],
  ['grpc-timeout', '1000m'],
  ['x-envoy-internal', 'true'],
]
// of the static table: POST, http
const fixed = [0x83, 0x86]

/** The first block puts the fields into the table; those after it name their places there, as Envoy's do. */
const firstBlock = Buffer.from([
  ...fixed,
  ...fields.flatMap(([name, value]) => [
    ...[0x40, name.length, ...Buffer.from(name)],
    ...[value.length, ...Buffer.from(value)],
  ]),
])
const nextBlock = Buffer.from([
  ...fixed,
  ...fields.map((_, i) => 0x80 + 62 + fields.length - 1 - i),
])

const endHeaders = 4
const endStream = 1

function number(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

/** One connection, with so many questions at once. */
interface Asker {
  /** Asks `count` times; resolves when all are answered. `waited` is told the milliseconds of each. */
  ask(count: number, waited: (ms: number) => void): Promise<void>
  /** Asks once more, however many have no answer yet. */
  askNow(waited: (ms: number) => void): void
  /** Resolves when all are answered. */
  answered(): Promise<void>
  close(): void
}

/** Both frames of a question, in which the stream's number is put. */
function template(block: Buffer, body: Uint8Array) {
  const head = frame(types.headers, endHeaders, 0, block)
  const bytes = Buffer.concat([head, frame(types.data, endStream, 0, body)])
  return { bytes, places: [5, head.length + 5] }
}

function createFrames(onEnd: (stream: number) => void) {
  let rest: Buffer = Buffer.alloc(0)
  return (chunk: Buffer) => {
    const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
    let at = 0
    while (bytes.length - at >= 9) {
      const end = at + 9 + bytes.readUIntBE(at, 3)
      if (end > bytes.length) break
      const [type, flags] = [bytes[at + 3] ?? 0, bytes[at + 4] ?? 0]
      if (type === types.reset || type === types.goaway)
        throw new Error(`the server refused: ${type}`)
      const isEnd = (type === types.headers || type === types.data) && (flags & endStream) !== 0
      if (isEnd) onEnd(bytes.readUInt32BE(at + 5))
      at = end
    }
    rest = bytes.subarray(at)
  }
}

async function openAsker(path: string, body: Uint8Array, streams: number): Promise<Asker> {
  const socket: Socket = connect(path)
  await once(socket, 'connect')
  const [first, next] = [template(firstBlock, body), template(nextBlock, body)]
  let stream = -1
  let [toAsk, toCome] = [0, 0]
  let waited = (_: number) => {}
  let done = Promise.withResolvers<void>()
  const asked = new Map<number, number>()

  function one(): Buffer {
    const { bytes, places } = stream < 0 ? first : next
    stream += 2
    const copy = Buffer.from(bytes)
    for (const place of places) copy.writeUInt32BE(stream, place)
    asked.set(stream, performance.now())
    return copy
  }

  let out: Buffer[] = []
  const read = createFrames((id) => {
    waited(performance.now() - (asked.get(id) ?? 0))
    asked.delete(id)
    toCome--
    if (toAsk-- > 0) out.push(one())
  })
  socket.on('data', (chunk: Buffer) => {
    try {
      read(chunk)
    } catch (error) {
      done.reject(error)
    }
    if (out.length > 0) socket.write(Buffer.concat(out))
    out = []
    if (toCome === 0) done.resolve()
  })
  socket.on('error', (error) => done.reject(error))
  socket.on('close', () => done.reject(new Error('the connection has ended')))
  socket.write(
    Buffer.concat([
      Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
      frame(types.settings, 0, 0, Buffer.alloc(0)),
      frame(types.windowUpdate, 0, 0, number(2 ** 31 - 1 - 65_535)),
      // the server's settings are taken as they are
      frame(types.settings, 1, 0, Buffer.alloc(0)),
    ]),
  )
  return {
    ask(count, told) {
      done = Promise.withResolvers()
      waited = told
      toAsk = count
      toCome = count
      const begin: Buffer[] = []
      while (begin.length < streams && toAsk-- > 0) begin.push(one())
      socket.write(Buffer.concat(begin))
      return done.promise
    },
    askNow(told) {
      if (toCome === 0) done = Promise.withResolvers()
      waited = told
      toCome++
      socket.write(one())
    },
    answered: () => (toCome === 0 ? Promise.resolve() : done.promise),
    close: () => socket.destroy(),
  }
}

export interface Load extends Disposable {
  /** Asks so often, over all connections together. */
  ask(count: number, waited?: (ms: number) => void): Promise<void>
  /** Asks at a steady rate, whether or not those before are answered. */
  pace(perSecond: number, count: number, waited: (ms: number) => void): Promise<void>
}

const patience = 60_000

/** Rejects rather than waits for ever. */
async function inTime<T>(what: string, work: Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>()
  const timer = setTimeout(() => late.reject(new Error(`in vain: ${what}`)), patience)
  try {
    return await Promise.race([work, late.promise])
  } finally {
    clearTimeout(timer)
  }
}

export async function openLoad(
  path: string,
  { body, connections, streams }: { body: Uint8Array; connections: number; streams: number },
): Promise<Load> {
  const opening = Array.from({ length: connections }, () => openAsker(path, body, streams))
  const askers = await inTime(`${connections} connections to ${path}`, Promise.all(opening))
  return {
    async ask(count, waited = () => {}) {
      const each = Math.ceil(count / connections)
      await inTime('answers', Promise.all(askers.map((asker) => asker.ask(each, waited))))
    },
    async pace(perSecond, count, waited) {
      const began = performance.now()
      for (let sent = 0; sent < count; ) {
        const due = Math.floor(((performance.now() - began) * perSecond) / 1000)
        for (; sent < Math.min(due, count); sent++) askers[sent % askers.length]?.askNow(waited)
        await new Promise((resolve) => setImmediate(resolve))
      }
      await inTime('answers', Promise.all(askers.map((asker) => asker.answered())))
    },
    [Symbol.dispose]() {
      for (const asker of askers) asker.close()
    },
  }
}
