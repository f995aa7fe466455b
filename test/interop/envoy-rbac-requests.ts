// Requests for a real Envoy, byte by byte, and the backend that says what reached it.
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import fc from 'fast-check'
import type { OwnSvid } from '../../client/x509-source.ts'
import { toPem } from '../../spiffe/pem.ts'
import type { Sent } from '../support/envoy-request.ts'

export interface Backend extends AsyncDisposable {
  readonly port: number
}

/** Answers every head that it reads with its first line. */
export async function startBackend(): Promise<Backend> {
  const server = createServer((socket) => {
    let text = ''
    socket.on('error', () => socket.destroy())
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1')
      for (let end = text.indexOf('\r\n\r\n'); end >= 0; end = text.indexOf('\r\n\r\n')) {
        const [line = ''] = text.slice(0, end).split('\r\n')
        text = text.slice(end + 4)
        socket.write(`HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-line: ${line}\r\n\r\n`)
      }
    })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const bound = server.address()
  return {
    port: typeof bound === 'object' && bound !== null ? bound.port : 0,
    async [Symbol.asyncDispose]() {
      server.close()
    },
  }
}

export interface Answered {
  /** 0: the connection ended */
  readonly status: number
  /** the request's target as it reached the backend */
  readonly target: string | undefined
}

export interface Door {
  readonly port: number
  readonly svid?: OwnSvid | undefined
  readonly roots?: string
}

function open({ port, svid, roots = '' }: Door): Socket {
  const where = { host: '127.0.0.1', port }
  if (svid === undefined) return connect(where)
  const cert = svid.chain.map((der) => toPem(der, 'CERTIFICATE')).join('')
  const key = svid.key.export({ format: 'pem', type: 'pkcs8' })
  return connectTls({ ...where, cert, key, ca: roots, checkServerIdentity: () => undefined })
}

/** milliseconds until an answer is given up: that nothing comes is no refusal */
const patience = 15_000

/** The first answer to these bytes, over a connection of its own. */
export async function askBytes(door: Door, bytes: Uint8Array): Promise<Answered> {
  const socket = open(door)
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  let text = ''
  socket.setTimeout(patience, () => reject(new Error(`no answer in ${patience} ms`)))
  socket.on('error', (error) =>
    // nobody listens there
    'code' in error && error.code === 'ECONNREFUSED' ? reject(error) : resolve(text),
  )
  socket.on('close', () => resolve(text))
  socket.on('data', (chunk) => {
    text += chunk.toString('latin1')
    if (text.includes('\r\n\r\n')) resolve(text)
  })
  socket.write(bytes)
  const answer = await promise.finally(() => socket.destroy())
  const [, status = '0'] = /^HTTP\/1\.1 (\d{3})/.exec(answer) ?? []
  const [, target] = /^x-line: \S+ (\S+)/m.exec(answer) ?? []
  return { status: Number(status), target }
}

export function bytesOf({ method, target, hosts, headers }: Sent): Uint8Array {
  const lines = [...hosts.map((host) => ['host', host] as const), ...headers]
  const head = lines.map(([name, value]) => `${name}: ${value}\r\n`).join('')
  return Buffer.from(`${method} ${target} HTTP/1.1\r\n${head}\r\n`, 'latin1')
}

const usual = [
  '/',
  '/a',
  'public',
  'admin',
  'x',
  '.',
  '..',
  ';',
  '?',
  '%c3%a9',
  '%C3%A9',
  '.secret',
  't',
]
const odd = [
  ...[
    '%',
    '%2e',
    '%2f',
    '%5C',
    '\\',
    '%25',
    '%4%31',
    '%61',
    '"',
    '<',
    '^',
    '{',
    '|',
    '`',
    '#',
    '\xff',
  ],
  ...['%00', '%0a', '%ff', '%ed%a0%80', '%2', '//', '..;', '%2e%2e;', '%20', "'", '~', '%7e'],
]
const piece = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom(...usual) },
  { weight: 1, arbitrary: fc.constantFrom(...odd) },
)
const odder = fc.array(piece, { maxLength: 6 }).map((all) => `/${all.join('')}`)
const likely = fc.constantFrom(
  '/',
  '/public',
  '/public/x?y',
  '/admin',
  '/admin/x',
  '/p3',
  '/p4?q',
  '/%c3%A9/x',
  '/a.secret',
  '/t/a/x',
  '//public',
  '/healthz',
)

const host = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom('h', 'h', 'H:80', 'a.h.') },
  {
    weight: 1,
    arbitrary: fc.constantFrom(
      'deny.example',
      'Deny.Example.:8080',
      'x.deny.example',
      'prefix.org',
      'h:81',
      'h..',
      'h:',
      'u@h',
      '[::1]',
      '[::1',
      'h,h',
    ),
  },
)
const line = fc.oneof(
  {
    weight: 2,
    arbitrary: fc.tuple(
      fc.constant('x-role'),
      fc.constantFrom('admin', 'user', 'a,admin', 'admin ,b', '\xff', 'rob', 'xrob', ''),
    ),
  },
  {
    weight: 2,
    arbitrary: fc.tuple(
      fc.constant('X-Tier'),
      fc.constantFrom('gold', 'gold', 'gold,tin', 'tin', ' gold '),
    ),
  },
  {
    weight: 1,
    arbitrary: fc.tuple(
      fc.constant('x-forwarded-for'),
      fc.constantFrom(
        '10.1.1.1',
        '8.8.8.8',
        '::ffff:10.1.1.1',
        '8.8.8.8, 10.1.1.1',
        '10.1.1.1,8.8.8.8',
        'abc',
        '010.1.1.1',
        '2001:db8::1',
      ),
    ),
  },
)

/** Requests that an HTTP/1.1 client can send, plain ones and such as have bypassed an engine. */
export const anySent = (uris: readonly string[]): fc.Arbitrary<Sent> =>
  fc.record({
    uris: fc.constantFrom(...uris).map((uri) => [uri]),
    peerIp: fc.constant('127.0.0.1'),
    destinationIp: fc.constant('127.0.0.1'),
    destinationPort: fc.constant(undefined),
    serverName: fc.constant(undefined),
    method: fc.constantFrom('GET', 'GET', 'GET', 'POST', 'PROPFIND', 'get'),
    target: fc.oneof(likely, odder),
    hosts: fc.oneof(
      { weight: 12, arbitrary: host.map((it) => [it]) },
      { weight: 1, arbitrary: fc.tuple(host, host) },
    ),
    headers: fc.array(line, { maxLength: 3 }),
  })
