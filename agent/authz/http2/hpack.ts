// Header fields of HTTP/2 as they come (RFC 7541). What is sent here is prepared once and never indexed, so only
// the decoder has a table.
import { broken, errors } from './frames.ts'
import { decodeHuffman } from './huffman.ts'

export type Field = readonly [name: string, value: string]

/** What no encoder writes. */
const undecodable = (message: string) => broken(errors.compression, message)

const statics: readonly Field[] = [
  [':authority', ''],
  [':method', 'GET'],
  [':method', 'POST'],
  [':path', '/'],
  [':path', '/index.html'],
  [':scheme', 'http'],
  [':scheme', 'https'],
  ...[200, 204, 206, 304, 400, 404, 500].map((it): Field => [':status', String(it)]),
  ['accept-charset', ''],
  ['accept-encoding', 'gzip, deflate'],
  ...[
    'accept-language accept-ranges accept access-control-allow-origin age allow authorization cache-control',
    'content-disposition content-encoding content-language content-length content-location content-range',
    'content-type cookie date etag expect expires from host if-match if-modified-since if-none-match if-range',
    'if-unmodified-since last-modified link location max-forwards proxy-authenticate proxy-authorization range',
    'referer refresh retry-after server set-cookie strict-transport-security transfer-encoding user-agent vary',
    'via www-authenticate',
  ].flatMap((line) => line.split(' ').map((name): Field => [name, ''])),
]

export const tableSize = 4096
/** of a field beside its name and value (RFC 7541 §4.1) */
const overhead = 32

/** The newest field first. */
function createTable() {
  let fields: Field[] = []
  let size = 0
  let most = tableSize
  const sizeOf = ([name, value]: Field) => name.length + value.length + overhead

  function shrink(to: number): void {
    while (size > to) {
      const oldest = fields.pop()
      if (oldest === undefined) break
      size -= sizeOf(oldest)
    }
  }

  return {
    get(index: number): Field {
      const field =
        index <= statics.length ? statics[index - 1] : fields[index - 1 - statics.length]
      if (field === undefined) throw undecodable(`no field has the index ${index}`)
      return field
    },
    add(field: Field): void {
      const needed = sizeOf(field)
      if (needed > most) {
        fields = []
        size = 0
        return
      }
      shrink(most - needed)
      fields.unshift(field)
      size += needed
    },
    resize(next: number): void {
      if (next > tableSize) throw undecodable('a table larger than was agreed on')
      most = next
      shrink(most)
    },
  }
}

/** Reads a block from its start to its end. */
interface Reader {
  at: number
  readonly bytes: Buffer
}

const mostBytesOfInteger = 5

/** RFC 7541 §5.1. */
function integer(reader: Reader, prefix: number): number {
  const { bytes } = reader
  const most = 2 ** prefix - 1
  const start = (bytes[reader.at++] ?? 0) & most
  if (start < most) return start
  let value = most
  for (let i = 0; i < mostBytesOfInteger; i++) {
    const byte = bytes[reader.at++]
    if (byte === undefined) break
    value += (byte & 127) * 2 ** (7 * i)
    if (byte < 128) return value
  }
  throw undecodable('an integer without end')
}

function string(reader: Reader): string {
  const { bytes } = reader
  const isHuffman = (bytes[reader.at] ?? 0) >= 128
  const length = integer(reader, 7)
  const from = reader.at
  reader.at += length
  if (reader.at > bytes.length) throw undecodable('a string that ends after its block')
  if (!isHuffman) return bytes.toString('latin1', from, reader.at)
  const text = decodeHuffman(bytes, from, reader.at)
  if (text === undefined) throw undecodable('a string in no Huffman code')
  return text
}

export interface Hpack {
  /** The fields of one block, in their order. Throws what is `broken`. */
  decode(block: Buffer): readonly Field[]
}

export function createHpack(): Hpack {
  const table = createTable()
  let last: { readonly block: Buffer; readonly fields: readonly Field[] } | undefined

  function literal(reader: Reader, prefix: number): Field {
    const index = integer(reader, prefix)
    const name = index === 0 ? string(reader) : table.get(index)[0]
    return [name, string(reader)]
  }

  /** Of one block; says whether the table is as it was. */
  function read(block: Buffer): { readonly fields: Field[]; readonly isPure: boolean } {
    const reader = { at: 0, bytes: block }
    const fields: Field[] = []
    let isPure = true
    while (reader.at < block.length) {
      const byte = block[reader.at] ?? 0
      if (byte >= 128) fields.push(table.get(integer(reader, 7)))
      else if (byte >= 64) {
        const field = literal(reader, 6)
        table.add(field)
        fields.push(field)
        isPure = false
      } else if (byte >= 32) {
        if (fields.length > 0) throw undecodable('a table resized inside a block')
        table.resize(integer(reader, 5))
        isPure = false
      } else fields.push(literal(reader, 4))
    }
    return { fields, isPure }
  }

  return {
    decode(block) {
      // most questions of a proxy begin alike
      if (last?.block.equals(block)) return last.fields
      const { fields, isPure } = read(block)
      last = isPure ? { block: Buffer.from(block), fields } : undefined
      return fields
    },
  }
}

/** A block that no table is needed for. Names and values are ASCII. */
export function encodeBlock(fields: readonly Field[]): Buffer {
  const parts = fields.flatMap(([name, value]) => {
    const index = statics.findIndex(([n, v]) => n === name && v === value)
    return index < 0 ? [0, ...text(name), ...text(value)] : [129 + index]
  })
  return Buffer.from(parts)
}

function text(value: string): number[] {
  const bytes = [...Buffer.from(value, 'latin1')]
  if (bytes.length < 127) return [bytes.length, ...bytes]
  const length = [127]
  let rest = bytes.length - 127
  for (; rest >= 128; rest = Math.floor(rest / 128)) length.push((rest % 128) + 128)
  return [...length, rest, ...bytes]
}
