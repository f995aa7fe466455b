// Requests of one HTTP/2 connection while they come: fields in one block or several, then a body, of which no
// more is kept than a question may have.
import { broken, errors, type Frame, flags, unpadded } from './frames.ts'
import type { Field, Hpack } from './hpack.ts'

export interface Asked {
  readonly id: number
  readonly method: string
  readonly path: string
  readonly contentType: string
  /** undefined when it is over what may be sent */
  readonly body: Buffer | undefined
}

/** A request that has not ended. */
export interface Coming {
  readonly id: number
  readonly fields: readonly Field[]
  readonly parts: Buffer[]
  size: number
  /** bytes that may come yet, by what we have said */
  window: number
}

export interface RequestLimits {
  readonly bodyBytes: number
  readonly headerBytes: number
  /** of a stream, from its start: there is no update, so a body fits in it */
  readonly window: number
}

/** Fields of one request, with the flags of the frame that they began with. */
export interface WholeBlock {
  readonly block: Buffer
  readonly flags: number
}

export type Blocks = ReturnType<typeof createBlocks>

const mostContinuations = 16
const overhead = 32
const none = Buffer.alloc(0)

/** Blocks of fields, which nothing may come between (RFC 9113 §6.10). */
export function createBlocks({ headerBytes }: Pick<RequestLimits, 'headerBytes'>) {
  let open:
    | { readonly stream: number; readonly flags: number; readonly parts: Buffer[]; size: number }
    | undefined

  function whole(block: Buffer): Buffer {
    if (block.length > headerBytes) throw broken(errors.calm, 'too many fields')
    return block
  }

  return {
    /** Whether the frame may come now. */
    admits: ({ type, stream }: Frame) =>
      open === undefined || (type === 9 && stream === open.stream),
    begin(frame: Frame): WholeBlock | undefined {
      const payload = unpadded(frame)
      const block = (frame.flags & flags.priority) === 0 ? payload : payload.subarray(5)
      if ((frame.flags & flags.priority) !== 0 && payload.length < 5)
        throw broken(errors.frameSize, 'a priority that is too short')
      if ((frame.flags & flags.endHeaders) !== 0) return { block: whole(block), flags: frame.flags }
      const { stream } = frame
      open = { stream, flags: frame.flags, parts: [Buffer.from(block)], size: block.length }
      return undefined
    },
    goOn({ flags: its, payload }: Frame): WholeBlock | undefined {
      if (open === undefined) throw broken(errors.protocol, 'a continuation of nothing')
      open.parts.push(Buffer.from(payload))
      open.size += payload.length
      if (open.parts.length > mostContinuations || open.size > headerBytes)
        throw broken(errors.calm, 'too many fields')
      if ((its & flags.endHeaders) === 0) return undefined
      const done = { block: whole(Buffer.concat(open.parts)), flags: open.flags }
      open = undefined
      return done
    },
  }
}

const isPseudo = (name: string) => name.startsWith(':')

/** Whether fields are those of a request (RFC 9113 §8.2, §8.3). */
export function isRequest(fields: readonly Field[]): boolean {
  const pseudo = new Set<string>()
  let isPast = false
  for (const [name] of fields) {
    if (name === '' || name !== name.toLowerCase() || name === 'connection') return false
    if (!isPseudo(name)) {
      isPast = true
      continue
    }
    if (isPast || pseudo.has(name)) return false
    pseudo.add(name)
  }
  return [':method', ':path', ':scheme'].every((name) => pseudo.has(name))
}

const known = new WeakMap<readonly Field[], boolean>()

/** The same fields come again and again. Throws what is `broken`; false for no request. */
export function decodeRequest(hpack: Hpack, block: Buffer, { headerBytes }: RequestLimits) {
  const fields = hpack.decode(block)
  let isGood = known.get(fields)
  if (isGood === undefined) {
    let size = 0
    for (const [name, value] of fields) size += name.length + value.length + overhead
    if (size > headerBytes) throw broken(errors.calm, 'too many fields')
    isGood = isRequest(fields)
    known.set(fields, isGood)
  }
  return isGood ? fields : undefined
}

export function comingOf(id: number, fields: readonly Field[], { window }: RequestLimits): Coming {
  return { id, fields, parts: [], size: 0, window }
}

/** `length` is what the frame takes of the window, padding too. */
export function takeData(
  coming: Coming,
  data: Buffer,
  { length, most }: { length: number; most: number },
) {
  coming.window -= length
  if (coming.window < 0) throw broken(errors.flowControl, 'more than the window of a stream')
  coming.size += data.length
  if (coming.size > most) coming.parts.length = 0
  else if (data.length > 0) coming.parts.push(data)
}

function fieldIn(fields: readonly Field[], wanted: string): string {
  for (const [name, value] of fields) if (name === wanted) return value
  return ''
}

interface Head {
  readonly method: string
  readonly path: string
  readonly contentType: string
}

const heads = new WeakMap<readonly Field[], Head>()

function headOf(fields: readonly Field[]): Head {
  const known = heads.get(fields)
  if (known !== undefined) return known
  const made = {
    method: fieldIn(fields, ':method'),
    path: fieldIn(fields, ':path'),
    contentType: fieldIn(fields, 'content-type'),
  }
  heads.set(fields, made)
  return made
}

export function askedBy({ id, fields, parts, size }: Coming, most: number): Asked {
  const [only = none] = parts
  const body = size > most ? undefined : parts.length <= 1 ? only : Buffer.concat(parts)
  const { method, path, contentType } = headOf(fields)
  return { id, method, path, contentType, body }
}
