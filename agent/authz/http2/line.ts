// What one HTTP/2 connection is at any moment, and what each frame changes in it (RFC 9113 §6).
import {
  broken,
  type ErrorCode,
  errors,
  type Frame,
  flags,
  frameBytes,
  largestWindow,
  number,
  type Outbox,
  types,
  unpadded,
} from './frames.ts'
import type { Hpack } from './hpack.ts'
import type { Patience } from './patience.ts'
import {
  type Blocks,
  type Coming,
  comingOf,
  decodeRequest,
  type RequestLimits,
  takeData,
  type WholeBlock,
} from './requests.ts'
import type { Responses } from './responses.ts'

export interface Line {
  readonly out: Outbox
  readonly hpack: Hpack
  readonly blocks: Blocks
  readonly patience: Patience
  readonly responses: Responses
  readonly limits: RequestLimits
  /** streams at once */
  readonly mostStreams: number
  /** requests that have not ended */
  readonly coming: Map<number, Coming>
  /** asked, and not answered yet */
  readonly open: Set<number>
  /** the newest stream */
  last: number
  /** bytes of bodies for which no window was given back */
  taken: number
  /** told: the other side may not know yet; now: whoever opens a stream knows */
  draining: 'no' | 'told' | 'now'
  ask(it: Coming): void
  /** Ends the connection when it is time. */
  settle(): void
}

export const setting = { maxStreams: 3, window: 4, frame: 5, headerList: 6 } as const
export const windowBytes = 2 ** 24
export const drainPing = Buffer.from('draining')

const nothing = Buffer.alloc(0)

function reset(line: Line, id: number, code: ErrorCode): void {
  line.coming.delete(id)
  line.open.delete(id)
  line.responses.forget(id)
  line.out.frame(types.reset, 0, id, number(code))
}

/** Trailers: what they say is asked by nobody. */
function endByFields(line: Line, it: Coming, { block, flags: its }: WholeBlock): void {
  line.hpack.decode(block)
  if ((its & flags.endStream) !== 0) line.ask(it)
  else reset(line, it.id, errors.protocol)
}

function beginRequest(line: Line, stream: number, { block, flags: its }: WholeBlock): void {
  const { coming, open, limits } = line
  const known = coming.get(stream)
  if (known !== undefined) {
    endByFields(line, known, { block, flags: its })
    return
  }
  const fields = decodeRequest(line.hpack, block, limits)
  if (stream % 2 === 0 || stream <= line.last)
    throw broken(errors.protocol, 'a stream that was there before')
  line.last = stream
  const isFull = line.draining === 'now' || open.size + coming.size >= line.mostStreams
  if (fields === undefined || isFull) {
    reset(line, stream, fields === undefined ? errors.protocol : errors.refused)
    return
  }
  const it = comingOf(stream, fields, limits)
  coming.set(stream, it)
  if ((its & flags.endStream) !== 0) line.ask(it)
}

function onFields(line: Line, frame: Frame): void {
  const { stream, type } = frame
  if (stream === 0) throw broken(errors.protocol, 'fields of no stream')
  const whole = type === types.headers ? line.blocks.begin(frame) : line.blocks.goOn(frame)
  if (whole !== undefined) beginRequest(line, stream, whole)
}

/** The window of all streams together is given back by halves; that of one holds a whole question. */
function giveBack(line: Line, bytes: number): void {
  line.taken += bytes
  if (line.taken <= windowBytes / 2) return
  line.out.frame(types.windowUpdate, 0, 0, number(line.taken))
  line.taken = 0
}

function onData(line: Line, frame: Frame): void {
  const { stream, payload } = frame
  const { bodyBytes } = line.limits
  if (stream === 0 || stream > line.last) throw broken(errors.protocol, 'data of no stream')
  giveBack(line, payload.length)
  const it = line.coming.get(stream)
  // of one that was answered or reset before its end
  if (it === undefined) {
    line.patience.idle()
    return
  }
  const data = unpadded(frame)
  takeData(it, data, { length: payload.length, most: bodyBytes })
  if ((frame.flags & flags.endStream) !== 0) line.ask(it)
  else if (it.size > bodyBytes) {
    line.ask(it)
    line.out.frame(types.reset, 0, stream, number(errors.none))
  } else if (data.length === 0) line.patience.idle()
}

function onReset(line: Line, { stream, payload }: Frame): void {
  if (payload.length !== 4) throw broken(errors.frameSize, 'a reset that is no number')
  if (stream === 0 || stream > line.last) throw broken(errors.protocol, 'a reset of no stream')
  if (line.coming.delete(stream) || line.open.delete(stream)) line.patience.cancelled()
  else line.patience.idle()
  line.responses.forget(stream)
  line.settle()
}

function take(line: Line, id: number, value: number): void {
  if (id === setting.window) {
    if (value > largestWindow) throw broken(errors.flowControl, 'a window that is too large')
    line.responses.begin(value)
  }
  if (id !== setting.frame) return
  if (value < frameBytes || value >= 2 ** 24) throw broken(errors.protocol, 'a frame of no size')
  line.responses.setFrame(value)
}

function onSettings(line: Line, { stream, flags: its, payload }: Frame): void {
  if (stream !== 0) throw broken(errors.protocol, 'settings of a stream')
  const isAck = (its & flags.ack) !== 0
  if (payload.length % 6 !== 0 || (isAck && payload.length > 0))
    throw broken(errors.frameSize, 'settings of another size')
  line.patience.idle()
  if (isAck) return
  for (let at = 0; at < payload.length; at += 6)
    take(line, payload.readUInt16BE(at), payload.readUInt32BE(at + 2))
  line.out.frame(types.settings, flags.ack, 0, nothing)
}

function onPing(line: Line, { stream, flags: its, payload }: Frame): void {
  if (stream !== 0) throw broken(errors.protocol, 'a ping of a stream')
  if (payload.length !== 8) throw broken(errors.frameSize, 'a ping of another size')
  line.patience.idle()
  if ((its & flags.ack) === 0) line.out.frame(types.ping, flags.ack, 0, payload)
  else if (line.draining === 'told' && payload.equals(drainPing)) {
    line.draining = 'now'
    line.settle()
  }
}

function onWindow(line: Line, { stream, payload }: Frame): void {
  if (payload.length !== 4) throw broken(errors.frameSize, 'a window that is no number')
  if (stream > line.last) throw broken(errors.protocol, 'a window of no stream')
  line.patience.idle()
  const by = payload.readUInt32BE(0) & 0x7fff_ffff
  const isOpen = stream === 0 || line.coming.has(stream) || line.open.has(stream)
  if (by > 0) {
    if (isOpen) line.responses.grow(stream, by)
    return
  }
  if (stream === 0) throw broken(errors.protocol, 'a window that does not grow')
  if (isOpen) reset(line, stream, errors.protocol)
}

function refusePush(): never {
  throw broken(errors.protocol, 'a client that pushes')
}

const handlers: Readonly<Record<number, (line: Line, frame: Frame) => void>> = {
  [types.data]: onData,
  [types.headers]: onFields,
  [types.continuation]: onFields,
  [types.reset]: onReset,
  [types.settings]: onSettings,
  [types.push]: refusePush,
  [types.ping]: onPing,
  [types.windowUpdate]: onWindow,
}

/** Throws what is `broken`. */
export function takeFrame(line: Line, frame: Frame): void {
  if (!line.blocks.admits(frame)) throw broken(errors.protocol, 'a frame inside of fields')
  const handle = handlers[frame.type]
  // what is new, or of no use here, is passed over (RFC 9113 §5.5)
  if (handle === undefined) line.patience.idle()
  else handle(line, frame)
}
