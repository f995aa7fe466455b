// Our HTTP/2, frame by frame: what node:http2 would never send, and what it has to understand.
import { once } from 'node:events'
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2'
import { connect, createServer, type Server, type Socket } from 'node:net'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { encodeBlock } from '../../../../agent/authz/http2/hpack.ts'
import type { Asked } from '../../../../agent/authz/http2/requests.ts'
import type { Response } from '../../../../agent/authz/http2/responses.ts'
import { type Session, serveHttp2 } from '../../../../agent/authz/http2/session.ts'
import { type Frame, frame, framesIn, types } from '../../../support/frames.ts'

const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
const opening = Buffer.concat([preface, frame(types.settings, 0, 0, Buffer.alloc(0))])
const [endStream, endHeaders, padded, priority] = [1, 4, 8, 32]
const block = encodeBlock([
  ...[[':method', 'POST'] as const, [':path', '/'] as const, [':scheme', 'http'] as const],
])
const trailers = encodeBlock([['grpc-status', '0']])

let server: Server
let sessions: Session[] = []
let answer: (asked: Asked) => Response | Promise<Response>
let opened: Socket[] = []

const whole = (body: Uint8Array): Response => ({ headers: Buffer.from([0x88]), body, trailers })
const echo = ({ body }: Asked) => whole(body ?? Buffer.from('too large'))

beforeEach(async () => {
  answer = echo
  sessions = []
  opened = []
  server = createServer((socket) => {
    sessions.push(
      serveHttp2(socket, {
        ...{ bodyBytes: 1000, headerBytes: 4096, streams: 10, now: () => 0 },
        answer: (asked) => answer(asked),
      }),
    )
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
})
afterEach(() => {
  for (const socket of opened) socket.destroy()
  server.close()
})

const portOf = () => {
  const bound = server.address()
  return typeof bound === 'object' && bound !== null ? bound.port : 0
}

interface Raw {
  send(...frames: Uint8Array[]): void
  /** Resolves with all frames so far, once `enough` holds or the connection has ended. */
  until(enough: (frames: readonly Frame[]) => boolean): Promise<readonly Frame[]>
}

async function open(first: Uint8Array = opening): Promise<Raw> {
  const socket = connect(portOf(), '127.0.0.1')
  opened.push(socket)
  socket.on('error', () => {})
  await once(socket, 'connect')
  let bytes = Buffer.alloc(0)
  let isOver = false
  let look = () => {}
  socket.on('data', (chunk: Buffer) => {
    bytes = Buffer.concat([bytes, chunk])
    look()
  })
  socket.on('close', () => {
    isOver = true
    look()
  })
  socket.write(first)
  return {
    send: (...frames) => void socket.write(Buffer.concat(frames)),
    async until(enough) {
      const { promise, resolve } = Promise.withResolvers<void>()
      look = () => {
        if (isOver || enough(framesIn(bytes))) resolve()
      }
      look()
      await promise
      return framesIn(bytes)
    },
  }
}

const isEnd = (id: number) => (frames: readonly Frame[]) =>
  frames.some(
    ({ stream, flags, type }) =>
      stream === id && (type === types.reset || (flags & endStream) !== 0),
  )
const bodyOf = (frames: readonly Frame[], id: number) =>
  Buffer.concat(
    frames.flatMap(({ type, stream, payload }) =>
      type === types.data && stream === id ? [payload] : [],
    ),
  ).toString()
/** The code of the GOAWAY, undefined without one. */
async function goneBy(raw: Raw): Promise<number | undefined> {
  const frames = await raw.until((all) => all.some(({ type }) => type === types.goaway))
  return frames.find(({ type }) => type === types.goaway)?.payload.readUInt32BE(4)
}
const resetCode = (frames: readonly Frame[], id: number) =>
  frames.find(({ type, stream }) => type === types.reset && stream === id)?.payload.readUInt32BE(0)

const head = (id: number, flags = endHeaders, payload: Uint8Array = block) =>
  frame(types.headers, flags, id, payload)
const data = (id: number, text: string | Uint8Array, flags = endStream) =>
  frame(types.data, flags, id, Buffer.from(text))
const number = (value: number) => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}
const setting = (id: number, value: number) => {
  const bytes = Buffer.alloc(6)
  bytes.writeUInt16BE(id)
  bytes.writeUInt32BE(value, 2)
  return frame(types.settings, 0, 0, bytes)
}

describe('a connection', () => {
  it('is answered, however its bytes are cut', async () => {
    const bytes = Buffer.concat([
      opening,
      head(1),
      data(1, 'one'),
      head(3),
      data(3, 'two', 0),
      data(3, '!'),
    ])
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat(bytes.length), { maxLength: 6 }), async (cuts) => {
        const raw = await open(Buffer.alloc(0))
        let from = 0
        for (const cut of [...cuts, bytes.length].sort((a, b) => a - b)) {
          raw.send(bytes.subarray(from, cut))
          from = cut
          await new Promise((resolve) => setImmediate(resolve))
        }
        const frames = await raw.until((all) => isEnd(1)(all) && isEnd(3)(all))
        expect([bodyOf(frames, 1), bodyOf(frames, 3)]).toEqual(['one', 'two!'])
      }),
      { numRuns: 25 },
    )
  })

  it('fields in pieces, padding, priority and frames of the future are understood', async () => {
    const raw = await open()
    const rest = block.subarray(3)
    const prioritised = Buffer.concat([number(0), Buffer.from([16]), block.subarray(0, 3)])
    raw.send(head(1, priority, prioritised), frame(types.continuation, 0, 1, rest.subarray(0, 2)))
    raw.send(frame(types.continuation, endHeaders, 1, rest.subarray(2)))
    raw.send(frame(99, 0, 0, Buffer.from('new')), frame(2, 0, 1, Buffer.alloc(5)))
    raw.send(
      data(
        1,
        Buffer.concat([Buffer.from([3]), Buffer.from('body'), Buffer.alloc(3)]),
        endStream | padded,
      ),
    )
    expect(bodyOf(await raw.until(isEnd(1)), 1)).toBe('body')
  })

  it('trailers end a request', async () => {
    const raw = await open()
    raw.send(
      head(1),
      data(1, 'body', 0),
      head(1, endHeaders | endStream, encodeBlock([['a', 'b']])),
    )
    expect(bodyOf(await raw.until(isEnd(1)), 1)).toBe('body')
  })

  it('answers are written as far as the windows go, and then when they grow', async () => {
    answer = () => whole(Buffer.alloc(40_000, 'x'))
    const raw = await open(Buffer.concat([preface, setting(4, 10)]))
    raw.send(head(1), data(1, ''))
    const length = (frames: readonly Frame[]) => bodyOf(frames, 1).length
    expect(length(await raw.until((all) => length(all) >= 10))).toBe(10)
    raw.send(frame(types.windowUpdate, 0, 1, number(5)))
    expect(length(await raw.until((all) => length(all) > 10))).toBe(15)
    raw.send(setting(4, 100_000))
    const frames = await raw.until(isEnd(1))
    expect(length(frames)).toBe(40_000)
    for (const { type, payload } of frames)
      if (type === types.data) expect(payload.length).toBeLessThanOrEqual(16_384)
  })

  it('the window of the connection holds up all streams, and lets them go on', async () => {
    answer = () => whole(Buffer.alloc(16_000, 'x'))
    const raw = await open(Buffer.concat([preface, setting(4, 1_000_000)]))
    for (let id = 1; id < 12; id += 2) raw.send(head(id), data(id, ''))
    const total = (frames: readonly Frame[]) =>
      frames.reduce((sum, { type, payload }) => sum + (type === types.data ? payload.length : 0), 0)
    expect(total(await raw.until((all) => total(all) >= 65_535))).toBe(65_535)
    raw.send(frame(types.windowUpdate, 0, 0, number(1_000_000)))
    expect(total(await raw.until(isEnd(11)))).toBe(96_000)
  })

  it('gives back the windows of bodies: a connection is never used up', async () => {
    const raw = await open()
    let updates = 0
    for (let id = 1; id < 40_000; id += 2) {
      raw.send(head(id), data(id, Buffer.alloc(900)))
      if (id % 1000 === 1) {
        raw.send(frame(types.windowUpdate, 0, 0, number(900 * 500)))
        const frames = await raw.until(isEnd(id))
        updates = frames.filter(({ type }) => type === types.windowUpdate).length
      }
      if (updates > 1) break
    }
    expect(updates).toBeGreaterThan(1)
  })

  it('a body that is too large is answered before it ends', async () => {
    const raw = await open()
    raw.send(head(1), data(1, Buffer.alloc(1200), 0))
    const frames = await raw.until((all) => resetCode(all, 1) !== undefined)
    expect([bodyOf(frames, 1), resetCode(frames, 1)]).toEqual(['too large', 0])
    raw.send(data(1, 'more'), head(3), data(3, 'next'))
    expect(bodyOf(await raw.until(isEnd(3)), 3)).toBe('next')
  })

  it('one stream too many is refused in a way that it may be asked again', async () => {
    answer = () => new Promise(() => {})
    const raw = await open()
    for (let id = 1; id < 23; id += 2) raw.send(head(id), data(id, ''))
    expect(resetCode(await raw.until(isEnd(21)), 21)).toBe(7)
  })

  it.each<[string, Uint8Array]>([
    [
      'upper case',
      encodeBlock([
        [':method', 'POST'],
        [':path', '/'],
        [':scheme', 'http'],
        ['Accept', 'a'],
      ]),
    ],
    [
      'no path',
      encodeBlock([
        [':method', 'POST'],
        [':scheme', 'http'],
      ]),
    ],
    [
      'two paths',
      encodeBlock([
        [':method', 'POST'],
        [':path', '/'],
        [':path', '/'],
        [':scheme', 'http'],
      ]),
    ],
    [
      'a pseudo field after others',
      encodeBlock([
        [':method', 'POST'],
        ['a', 'b'],
        [':path', '/'],
        [':scheme', 'http'],
      ]),
    ],
    [
      'connection',
      encodeBlock([
        [':method', 'POST'],
        [':path', '/'],
        [':scheme', 'http'],
        ['connection', 'close'],
      ]),
    ],
  ])('a request with %s is reset, and nothing else', async (_, fields) => {
    const raw = await open()
    raw.send(head(1, endHeaders, fields), head(3), data(3, 'next'))
    const frames = await raw.until(isEnd(3))
    expect([resetCode(frames, 1), bodyOf(frames, 3)]).toEqual([1, 'next'])
  })

  it('an answer to a stream that was cancelled is thrown away', async () => {
    const { promise, resolve } = Promise.withResolvers<Response>()
    answer = () => promise
    const raw = await open()
    raw.send(head(1), data(1, ''), frame(types.reset, 0, 1, number(8)))
    raw.send(frame(types.ping, 0, 0, Buffer.alloc(8)))
    await raw.until((all) => all.some(({ type }) => type === types.ping))
    resolve(whole(Buffer.from('late')))
    await promise
    answer = echo
    raw.send(head(3), data(3, 'next'))
    const frames = await raw.until(isEnd(3))
    expect(frames.filter(({ stream }) => stream === 1)).toEqual([])
    expect(sessions[0]?.streams).toBe(0)
  })
})

describe('what ends a connection', () => {
  const many = (count: number, each: (i: number) => Uint8Array[]) =>
    Buffer.concat(Array.from({ length: count }, (_, i) => each(i)).flat())
  it.each<[string, number, () => Uint8Array]>([
    ['no preface', 1, () => Buffer.from('GET / HTTP/1.1\r\nhost: a\r\n\r\n')],
    [
      'a frame too large',
      6,
      () => Buffer.concat([opening, head(1), data(1, Buffer.alloc(20_000))]),
    ],
    ['data of no stream', 1, () => Buffer.concat([opening, data(1, '')])],
    ['a stream of the server', 1, () => Buffer.concat([opening, head(2)])],
    [
      'a stream for the second time',
      1,
      () => Buffer.concat([opening, head(1), data(1, ''), head(1)]),
    ],
    ['a frame inside of fields', 1, () => Buffer.concat([opening, head(1, 0), data(1, '')])],
    [
      'a continuation of nothing',
      1,
      () => Buffer.concat([opening, frame(types.continuation, 4, 1, block)]),
    ],
    [
      'undecodable fields',
      9,
      () => Buffer.concat([opening, head(1, endHeaders, Buffer.from('ff00', 'hex'))]),
    ],
    [
      'too much padding',
      1,
      () => Buffer.concat([opening, head(1), data(1, Buffer.from([9, 1]), padded)]),
    ],
    [
      'a window of zero',
      1,
      () => Buffer.concat([opening, frame(types.windowUpdate, 0, 0, number(0))]),
    ],
    [
      'a window too large',
      3,
      () => Buffer.concat([opening, frame(types.windowUpdate, 0, 0, number(2 ** 31 - 1))]),
    ],
    ['an initial window too large', 3, () => Buffer.concat([preface, setting(4, 2 ** 31)])],
    ['a frame size of nothing', 1, () => Buffer.concat([preface, setting(5, 1)])],
    [
      'settings of another size',
      6,
      () => Buffer.concat([preface, frame(types.settings, 0, 0, Buffer.alloc(5))]),
    ],
    [
      'a ping of another size',
      6,
      () => Buffer.concat([opening, frame(types.ping, 0, 0, Buffer.alloc(7))]),
    ],
    ['a push', 1, () => Buffer.concat([opening, frame(5, 4, 1, Buffer.alloc(4))])],
    [
      'more than a stream may send',
      3,
      () =>
        Buffer.concat([
          ...[opening, head(1)],
          many(80, () => [data(1, Buffer.concat([Buffer.from([255]), Buffer.alloc(255)]), padded)]),
        ]),
    ],
    [
      'fields without end',
      11,
      () =>
        Buffer.concat([
          opening,
          head(1, 0),
          many(40, () => [frame(types.continuation, 0, 1, Buffer.from([0]))]),
        ]),
    ],
    [
      'too many fields',
      11,
      () =>
        Buffer.concat([
          opening,
          head(1, endHeaders, encodeBlock([...Array(200)].map((_, i) => [`a${i}`, 'b']))),
        ]),
    ],
    [
      'rapid reset',
      11,
      () =>
        Buffer.concat([
          opening,
          many(1100, (i) => [head(2 * i + 1), frame(types.reset, 0, 2 * i + 1, number(8))]),
        ]),
    ],
    [
      'pings without end',
      11,
      () =>
        Buffer.concat([opening, many(10_100, () => [frame(types.ping, 1, 0, Buffer.alloc(8))])]),
    ],
    [
      'empty data without end',
      11,
      () => Buffer.concat([opening, head(1), many(10_100, () => [data(1, '', 0)])]),
    ],
  ])('%s', async (_, code, bytes) => {
    const raw = await open(bytes())
    expect(await goneBy(raw)).toBe(code)
    // the next connection is served
    const next = await open()
    next.send(head(1), data(1, 'next'))
    expect(bodyOf(await next.until(isEnd(1)), 1)).toBe('next')
  })

  it('one who asks and does not read is cut off', async () => {
    answer = () => whole(Buffer.alloc(16_000))
    const socket = connect(portOf(), '127.0.0.1')
    opened.push(socket)
    socket.on('error', () => {})
    socket.pause()
    await once(socket, 'connect')
    socket.write(
      Buffer.concat([
        preface,
        setting(4, 2 ** 30),
        frame(types.windowUpdate, 0, 0, number(2 ** 30)),
      ]),
    )
    const closed = new Promise((resolve) => socket.once('close', resolve))
    for (let id = 1; id < 10_000 && !socket.destroyed; id += 2) {
      socket.write(Buffer.concat([head(id), data(id, '')]))
      if (id % 101 === 0) await new Promise((resolve) => setImmediate(resolve))
    }
    socket.resume()
    await closed
  })
})

describe('a drain', () => {
  it('lets come what is on its way, answers it, and ends', async () => {
    const { promise, resolve } = Promise.withResolvers<Response>()
    answer = ({ body }) => (body?.toString() === 'slow' ? promise : whole(body ?? Buffer.alloc(0)))
    const raw = await open()
    raw.send(head(1), data(1, 'slow'))
    while (sessions[0]?.streams !== 1) await new Promise((done) => setImmediate(done))
    sessions[0]?.drain()
    const [told] = (await raw.until((all) => all.some(({ type }) => type === types.ping))).filter(
      ({ type }) => type === types.goaway,
    )
    expect(told?.payload.readUInt32BE(0)).toBe(2 ** 31 - 1)
    raw.send(head(3), data(3, 'on its way'), frame(types.ping, 1, 0, Buffer.from('draining')))
    raw.send(head(5), data(5, 'too late'))
    await raw.until(isEnd(5))
    resolve(whole(Buffer.from('done')))
    const frames = await raw.until(
      (all) => all.filter(({ type }) => type === types.goaway).length === 2,
    )
    expect([bodyOf(frames, 1), bodyOf(frames, 3), resetCode(frames, 5)]).toEqual([
      'done',
      'on its way',
      7,
    ])
  })

  it('by node:http2 is no loss', async () => {
    const session: ClientHttp2Session = connectHttp2(`http://127.0.0.1:${portOf()}`)
    await once(session, 'connect')
    const ask = (text: string) => {
      const stream = session.request({ ':method': 'POST', ':path': '/' })
      let body = ''
      stream.setEncoding('utf8').on('data', (chunk: string) => {
        body += chunk
      })
      stream.end(text)
      return once(stream, 'close').then(() => body)
    }
    expect(await ask('one')).toBe('one')
    const answers = ['a', 'b', 'c'].map(ask)
    sessions[0]?.drain()
    const closed = once(session, 'close')
    expect(await Promise.all(answers)).toEqual(['a', 'b', 'c'])
    await closed
  })
})
