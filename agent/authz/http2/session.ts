// One HTTP/2 connection of a proxy that asks (RFC 9113): each request is read whole and answered at once. Frames
// of one turn are answered by one write.
import type { Socket } from 'node:net'
import {
  codeOf,
  createFrameReader,
  createOutbox,
  type ErrorCode,
  errors,
  frameBytes,
  largestWindow,
  number,
  types,
} from './frames.ts'
import { createHpack } from './hpack.ts'
import { drainPing, type Line, setting, takeFrame, windowBytes } from './line.ts'
import { createPatience } from './patience.ts'
import { type Asked, askedBy, createBlocks } from './requests.ts'
import { createResponses, type Response } from './responses.ts'

export interface SessionOptions {
  /** An answer, or a promise of one. Never throws, never rejects. */
  readonly answer: (asked: Asked) => Response | Promise<Response>
  /** of one request */
  readonly bodyBytes: number
  readonly headerBytes: number
  /** at once */
  readonly streams: number
  /** milliseconds, from any start */
  readonly now: () => number
}

export interface Session {
  /** Takes no new streams once the other side has heard of it; ends when all are answered. */
  drain(): void
  /** not answered yet */
  readonly streams: number
}

/** answers that were written and not read: nobody is owed more */
const mostUnread = 2 ** 22
/** milliseconds in which the other side may read why it is sent away */
const lastWords = 1000

function settingsPayload({ mostStreams, limits }: Pick<Line, 'mostStreams' | 'limits'>): Buffer {
  const pairs = [
    [setting.maxStreams, mostStreams],
    [setting.window, limits.window],
    [setting.headerList, limits.headerBytes],
  ] as const
  return Buffer.concat(
    pairs.map(([id, value]) => {
      const pair = Buffer.alloc(6)
      pair.writeUInt16BE(id, 0)
      pair.writeUInt32BE(value, 2)
      return pair
    }),
  )
}

const goaway = (last: number, code: ErrorCode, reason = '') =>
  Buffer.concat([number(last), number(code), Buffer.from(reason)])

/** Everything but what is done with it. */
function lineOf(
  options: SessionOptions,
  { ask, settle, finished }: Pick<Line, 'ask' | 'settle'> & { finished: (id: number) => void },
): Line {
  const { bodyBytes, headerBytes, streams, now } = options
  const limits = { bodyBytes, headerBytes, window: bodyBytes + frameBytes }
  const out = createOutbox()
  return {
    ...{ out, limits, ask, settle, mostStreams: streams },
    hpack: createHpack(),
    blocks: createBlocks(limits),
    patience: createPatience(now),
    responses: createResponses(out, finished),
    ...{ coming: new Map(), open: new Set(), last: 0, taken: 0, draining: 'no' },
  }
}

export function serveHttp2(socket: Socket, options: SessionOptions): Session {
  const { answer, bodyBytes } = options
  const reader = createFrameReader()
  const line = lineOf(options, {
    ask(it) {
      line.coming.delete(it.id)
      line.open.add(it.id)
      const response = answer(askedBy(it, bodyBytes))
      if (response instanceof Promise) void response.then((late) => respond(it.id, late))
      else respond(it.id, response)
    },
    settle() {
      if (line.draining === 'now' && line.open.size + line.coming.size === 0) end(errors.none)
    },
    finished,
  })
  const { out } = line
  let [isReading, isOver] = [false, false]

  function flush(): void {
    const bytes = out.flush()
    if (bytes === undefined || socket.destroyed) return
    socket.write(bytes)
    if (socket.writableLength > mostUnread) socket.destroy()
  }

  function end(code: ErrorCode, reason?: string): void {
    if (isOver) return
    isOver = true
    out.frame(types.goaway, 0, 0, goaway(line.last, code, reason))
    flush()
    socket.setTimeout(lastWords, () => socket.destroy())
    socket.end(() => socket.destroy())
  }

  function finished(id: number): void {
    line.open.delete(id)
    line.patience.busy()
    line.settle()
  }

  function respond(id: number, response: Response): void {
    // who has cancelled it does not want it
    if (isOver || !line.open.has(id)) return
    if (line.responses.send(id, response)) finished(id)
    if (!isReading) flush()
  }

  function read(chunk: Buffer): void {
    if (isOver) return
    isReading = true
    try {
      reader.push(chunk, (frame) => {
        if (!isOver) takeFrame(line, frame)
      })
    } catch (error) {
      end(codeOf(error), error instanceof Error ? error.message : '')
    }
    isReading = false
    flush()
  }

  out.frame(types.settings, 0, 0, settingsPayload(line))
  out.frame(types.windowUpdate, 0, 0, number(windowBytes - 65_535))
  flush()
  socket.on('error', () => {})
  socket.on('data', read)
  return {
    drain() {
      if (line.draining !== 'no') return
      line.draining = 'told'
      // twice: whoever has not read the first one may have opened a stream meanwhile (RFC 9113 §6.8)
      out.frame(types.goaway, 0, 0, goaway(largestWindow, errors.none))
      out.frame(types.ping, 0, 0, drainPing)
      flush()
    },
    get streams() {
      return line.open.size + line.coming.size
    },
  }
}
