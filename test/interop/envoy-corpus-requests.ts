// Requests of the corpus as bytes on mutual TLS, from the addresses that they say.
import { connect as connectHttp2 } from 'node:http2'
import { connect as connectTcp } from 'node:net'
import { type ConnectionOptions, connect } from 'node:tls'
import { toPem } from '../../spiffe/pem.ts'
import type { CorpusRequest } from '../support/corpus.ts'
import type { Presented } from '../support/odd-certificates.ts'

export interface Door {
  readonly port: number
  readonly svid: NonNullable<Presented>
  /** PEM */
  readonly roots: string
  /** where the client is */
  readonly from: string
}

/** The networks of the corpus for documentation, as addresses that a socket here can have. */
export const onLoopback = (text: string): string =>
  text
    .replaceAll('198.51.100.', '127.100.0.')
    .replaceAll('192.0.2.', '127.2.0.')
    .replaceAll('192.0.3.', '127.3.0.')

function tlsOf({ port, svid, roots, from }: Door, protocol: string): ConnectionOptions {
  return {
    socket: connectTcp({ host: '127.0.0.1', port, localAddress: from }),
    cert: svid.chain.map((der) => toPem(der, 'CERTIFICATE')).join(''),
    key: svid.key.export({ format: 'pem', type: 'pkcs8' }),
    ca: roots,
    ALPNProtocols: [protocol],
    checkServerIdentity: () => undefined,
  }
}

interface Plain {
  readonly method: string
  readonly path: string
  readonly host?: string
  readonly headers?: readonly (readonly [name: string, value: string])[]
}

function bytesOfPlain({ method, path, host, headers = [] }: Plain): Buffer {
  const hosts = host === undefined ? [] : [['Host', host] as const]
  const lines = [...hosts, ...headers].map(([name, value]) => `${name}: ${value}\r\n`)
  return Buffer.from(`${method} ${path} HTTP/1.1\r\n${lines.join('')}\r\n`, 'latin1')
}

/** `remote` is what a proxy in front has added; undefined where this is no request by HTTP/1.1. */
export function bytesOf({ raw, http }: CorpusRequest, remote?: string): Buffer | undefined {
  const given = raw === undefined ? http && bytesOfPlain(http) : Buffer.from(raw, 'base64')
  if (given === undefined || remote === undefined) return given
  const end = given.indexOf('\n') + 1
  const line = Buffer.from(`X-Forwarded-For: ${remote}\r\n`)
  return Buffer.concat([given.subarray(0, end), line, given.subarray(end)])
}

/** milliseconds until an answer is given up: that nothing comes is no refusal */
const patience = 15_000
const silence = () => new Error(`no answer in ${patience} ms`)

/** The status of the first answer that is final; 0 for a connection that ended without one. */
export async function askBytes(door: Door, bytes: Uint8Array): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>()
  const socket = connect(tlsOf(door, 'http/1.1'))
  let text = ''
  socket.on('data', (part) => {
    text += part.toString('latin1')
    const [, status] = /^HTTP\/1\.1 ([2-5]\d\d) /m.exec(text) ?? []
    if (status !== undefined) resolve(Number(status))
  })
  socket.on('error', () => {})
  socket.setTimeout(patience, () => reject(silence()))
  socket.once('close', () => resolve(0))
  socket.write(bytes)
  return await promise.finally(() => socket.destroy())
}

// google.rpc.Code of what a denial and a refusal are for gRPC
const httpStatuses: Readonly<Record<string, number>> = { 0: 200, 3: 400, 7: 403, 16: 401 }

/** The same by HTTP/2, what gRPC says in its own words as what it means; 0 for a stream that was reset. */
export async function askFields(
  door: Door,
  fields: NonNullable<CorpusRequest['h2']>,
): Promise<number> {
  const socket = connect(tlsOf(door, 'h2'))
  const session = connectHttp2('https://app', { createConnection: () => socket })
  const { promise, resolve, reject } = Promise.withResolvers<number>()
  session.on('error', () => resolve(0))
  session.setTimeout(patience, () => reject(silence()))
  const stream = session.request(fields.flat(), { endStream: true })
  stream.on('error', () => {})
  stream.once('response', ({ ':status': status = 0, 'grpc-status': code }) =>
    resolve(code === undefined ? status : (httpStatuses[String(code)] ?? 0)),
  )
  stream.once('close', () => resolve(0))
  return await promise.finally(() => session.destroy())
}
