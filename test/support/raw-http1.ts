// HTTP/1.1 over one connection, byte by byte: what is sent stands here, and what came back.
import { connect as connectPlain, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import type { OwnSvid } from '../../client/x509-source.ts'
import { keyPairToPem } from '../../spiffe/pem.ts'

export interface RawAnswer {
  /** 0: the connection ended */
  readonly status: number
  /** names in lower case */
  readonly headers: ReadonlyMap<string, string>
  readonly body: string
}

export interface RawConnection extends Disposable {
  /** The answer to these bytes; one at a time. */
  send(bytes: string | Uint8Array): Promise<RawAnswer>
  get(path: string, headers?: Readonly<Record<string, string>>): Promise<RawAnswer>
  readonly closed: Promise<void>
}

export interface RawOptions {
  readonly port: number
  /** presented; without it the connection is plaintext, unless there are roots */
  readonly svid?: Pick<OwnSvid, 'chain' | 'key'> | undefined
  /** PEM */
  readonly roots?: string | undefined
}

/** milliseconds until an answer is given up */
const patience = 60_000
const nothing: RawAnswer = { status: 0, headers: new Map(), body: '' }

function open({ port, svid, roots }: RawOptions): Socket {
  const where = { host: '127.0.0.1', port }
  if (svid === undefined && roots === undefined) return connectPlain(where)
  const identity = svid === undefined ? {} : keyPairToPem(svid)
  return connectTls({ ...where, ...identity, ca: roots, checkServerIdentity: () => undefined })
}

/** A whole answer at the start of `text`, and what follows it; undefined while it is not whole. */
function parse(text: string): { answer: RawAnswer; rest: string } | undefined {
  const end = text.indexOf('\r\n\r\n')
  if (end < 0) return undefined
  const [first = '', ...lines] = text.slice(0, end).split('\r\n')
  const headers = new Map(
    lines.map((line): [string, string] => {
      const colon = line.indexOf(':')
      return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()]
    }),
  )
  const status = Number(first.split(' ')[1] ?? 0)
  const after = text.slice(end + 4)
  if (headers.get('transfer-encoding') === 'chunked') {
    const last = /(?:^|\r\n)0\r\n\r\n/.exec(after)
    if (last === null) return undefined
    const stop = last.index + last[0].length
    const body = after.slice(0, stop).replace(/(?:^|\r\n)[0-9a-f]+\r\n/gi, '')
    return { answer: { status, headers, body: body.trim() }, rest: after.slice(stop) }
  }
  const length = Number(headers.get('content-length') ?? 0)
  if (after.length < length) return undefined
  return { answer: { status, headers, body: after.slice(0, length) }, rest: after.slice(length) }
}

/** What is refused is an answer of status 0; rejects when nothing comes at all, which is no refusal. */
export function connectRaw(options: RawOptions): RawConnection {
  const socket = open(options)
  let text = ''
  let waiting: PromiseWithResolvers<RawAnswer> | undefined
  const answered = (answer: RawAnswer) => {
    waiting?.resolve(answer)
    waiting = undefined
  }
  const look = () => {
    const found = parse(text)
    if (found === undefined || waiting === undefined) return
    text = found.rest
    answered(found.answer)
  }
  socket.on('error', () => {})
  socket.on('data', (chunk: Buffer) => {
    text += chunk.toString('latin1')
    look()
  })
  const { promise: closed, resolve: close } = Promise.withResolvers<void>()
  socket.on('close', () => {
    answered(nothing)
    close()
  })
  socket.setTimeout(patience, () => {
    if (waiting === undefined) return
    waiting.reject(new Error(`no answer in ${patience} ms`))
    socket.destroy()
  })
  const send = (bytes: string | Uint8Array) => {
    waiting = Promise.withResolvers()
    const { promise } = waiting
    if (socket.destroyed) answered(nothing)
    else socket.write(bytes)
    return promise
  }
  return {
    send,
    get(path, headers = {}) {
      const lines = Object.entries({ host: 'shop.example', ...headers })
      return send(
        `GET ${path} HTTP/1.1\r\n${lines.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`,
      )
    },
    closed,
    [Symbol.dispose]: () => socket.destroy(),
  }
}

/** One request over a connection of its own. */
export async function getRaw(
  options: RawOptions,
  path: string,
  headers?: Readonly<Record<string, string>>,
): Promise<RawAnswer> {
  using connection = connectRaw(options)
  return await connection.get(path, headers)
}
