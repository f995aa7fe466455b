// The bytes of one HTTP/1.1 request, read by the very server that reads them from peers, over a stream in
// memory: what `castellan policy eval` is asked about raw.
import { Duplex } from 'node:stream'
import { type RawHttp, type Rejection, reject } from '../policies/attributes/request.ts'
import type { ReadBytes } from '../policies/cases/evaluate.ts'
import { peerIdHeader } from '../proxy-spec/header-names.ts'
import { systemClock } from '../runtime/clock.ts'
import type { Core } from './core.ts'
import type { Door } from './door.ts'
import { http1Server } from './http1.ts'

const statuses: ReadonlyMap<string, Rejection['status']> = new Map([
  ['414', 414],
  ['431', 431],
])

const seen = { status: 204, text: '' }

/** A connection that brings `bytes` and ends, and keeps the beginning of what is answered. */
function connectionOf(bytes: Uint8Array): { readonly stream: Duplex; answered(): string } {
  let answer = ''
  const stream = new Duplex({
    read() {
      this.push(bytes)
      this.push(null)
    },
    write(chunk, _encoding, done) {
      if (answer.length < 64) answer += Buffer.from(chunk).toString('latin1').slice(0, 64)
      done()
    },
  })
  return { stream, answered: () => answer }
}

function refusalOf(answer: string): Rejection {
  const [, status = ''] = /^HTTP\/1\.1 (\d{3})/.exec(answer) ?? []
  return reject(statuses.get(status) ?? 400, 'the bytes are no HTTP request that is accepted')
}

/** Disposing ends it. */
export function createByteReader(core: Pick<Core, 'limits' | 'log' | 'tally'>): {
  readonly read: ReadBytes
} & Disposable {
  const waiting = new WeakMap<object, (raw: RawHttp) => void>()
  const doorOf = (connection: object): Door => ({
    open(raw) {
      waiting.get(connection)?.(raw)
      return seen
    },
  })
  const server = http1Server({ ...core, clock: systemClock, identityHeader: peerIdHeader }, doorOf)
  return {
    read(bytes) {
      const { stream, answered } = connectionOf(bytes)
      const result = Promise.withResolvers<RawHttp | Rejection>()
      waiting.set(stream, result.resolve)
      stream.once('close', () => result.resolve(refusalOf(answered())))
      stream.once('finish', () => stream.destroy())
      stream.on('error', () => {})
      server.emit('connection', stream)
      return result.promise.finally(() => stream.destroy())
    },
    [Symbol.dispose]: () => void server.close(),
  }
}
