// Answers on one HTTP/2 connection: written as far as the windows of the other side allow, the rest when they grow.
import {
  broken,
  errors,
  flags,
  headBytes,
  largestWindow,
  type Outbox,
  putHead,
  types,
} from './frames.ts'

/** An answer that was made before: blocks of fields, and between them what the stream's windows are asked for. */
export interface Response {
  readonly headers: Buffer
  /** empty for an answer of fields alone */
  readonly body: Uint8Array
  readonly trailers: Buffer | undefined
}

interface Waiting {
  readonly id: number
  readonly response: Response
  written: number
}

const usualWindow = 65_535
const leastFrame = 16_384

export interface Responses {
  /** Writes all of it now, or the rest later; true when nothing is left. */
  send(id: number, response: Response): boolean
  /** The other side takes more, of one stream or, for 0, of all. Throws what is `broken`. */
  grow(id: number, by: number): void
  /** Windows begin with so much from now on; those that are open grow or shrink. */
  begin(window: number): void
  setFrame(bytes: number): void
  forget(id: number): void
}

/** How much the other side takes: of all streams together, and of each. */
function createWindows() {
  let all = usualWindow
  let initial = usualWindow
  /** streams whose window is not what it began with */
  const changed = new Map<number, number>()
  const of = (id: number) => changed.get(id) ?? initial
  return {
    room: (id: number) => Math.min(all, of(id)),
    /** For a stream that ends with it. */
    spend(bytes: number) {
      all -= bytes
    },
    spendOn(id: number, bytes: number) {
      all -= bytes
      changed.set(id, of(id) - bytes)
    },
    grow(id: number, by: number) {
      const next = (id === 0 ? all : of(id)) + by
      if (next > largestWindow) throw broken(errors.flowControl, 'a window that is too large')
      if (id === 0) all = next
      else changed.set(id, next)
    },
    begin(window: number) {
      for (const [id, size] of changed) changed.set(id, size + window - initial)
      initial = window
    },
    forget: (id: number) => void changed.delete(id),
  }
}

/** In one piece: most answers are small. */
function putWhole(out: Outbox, id: number, { headers, body, trailers }: Response): void {
  const last = flags.endHeaders | flags.endStream
  const isAlone = trailers === undefined && body.length === 0
  const ofBody = body.length === 0 ? 0 : headBytes + body.length
  const ofTrailers = trailers === undefined ? 0 : headBytes + trailers.length
  const { bytes, at } = out.take(headBytes + headers.length + ofBody + ofTrailers)
  const put = (place: number, type: number, its: number, payload: Uint8Array) => {
    putHead(bytes, place, { type, flags: its, stream: id, length: payload.length })
    bytes.set(payload, place + headBytes)
    return place + headBytes + payload.length
  }
  let next = put(at, types.headers, isAlone ? last : flags.endHeaders, headers)
  if (body.length > 0)
    next = put(next, types.data, trailers === undefined ? flags.endStream : 0, body)
  if (trailers !== undefined) put(next, types.headers, last, trailers)
}

export function createResponses(out: Outbox, done: (id: number) => void): Responses {
  const windows = createWindows()
  const waiting = new Map<number, Waiting>()
  let frame = leastFrame

  /** As much as fits; whether that is all. */
  function go(it: Waiting): boolean {
    const { id, response } = it
    const { body, trailers } = response
    while (it.written < body.length) {
      const room = Math.min(windows.room(id), frame)
      if (room <= 0) return false
      const part = body.subarray(it.written, it.written + room)
      it.written += part.length
      windows.spendOn(id, part.length)
      const isLast = it.written === body.length && trailers === undefined
      out.frame(types.data, isLast ? flags.endStream : 0, id, part)
    }
    if (trailers !== undefined)
      out.frame(types.headers, flags.endHeaders | flags.endStream, id, trailers)
    windows.forget(id)
    return true
  }

  function goOn(): void {
    for (const it of [...waiting.values()]) {
      if (!go(it)) continue
      waiting.delete(it.id)
      done(it.id)
    }
  }

  return {
    send(id, response) {
      const { length } = response.body
      if (length <= frame && length <= windows.room(id)) {
        windows.spend(length)
        windows.forget(id)
        putWhole(out, id, response)
        return true
      }
      out.frame(types.headers, flags.endHeaders, id, response.headers)
      const it = { id, response, written: 0 }
      if (go(it)) return true
      waiting.set(id, it)
      return false
    },
    grow(id, by) {
      windows.grow(id, by)
      if (waiting.size > 0) goOn()
    },
    begin(window) {
      windows.begin(window)
      if (waiting.size > 0) goOn()
    },
    setFrame(bytes) {
      frame = bytes
    },
    forget(id) {
      waiting.delete(id)
      windows.forget(id)
    },
  }
}
