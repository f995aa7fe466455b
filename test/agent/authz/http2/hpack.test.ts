// HPACK as node:http2 writes it: its encoder is the oracle of our decoder.
import { once } from 'node:events'
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2'
import { createServer } from 'node:net'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createFrameReader, type Frame, types } from '../../../../agent/authz/http2/frames.ts'
import { createHpack, encodeBlock, type Field } from '../../../../agent/authz/http2/hpack.ts'
import { decodeHuffman, lengths } from '../../../../agent/authz/http2/huffman.ts'

const server = createServer()
let session: ClientHttp2Session
let blocks: Buffer[] = []
let came = () => {}

beforeAll(async () => {
  server.on('connection', (socket) => {
    const reader = createFrameReader()
    let parts: Buffer[] = []
    socket.on('data', (chunk: Buffer) =>
      reader.push(chunk, ({ type, flags, payload }: Frame) => {
        if (type !== types.headers && type !== types.continuation) return
        parts.push(Buffer.from((flags & 32) === 0 ? payload : payload.subarray(5)))
        if ((flags & 4) === 0) return
        blocks.push(Buffer.concat(parts))
        parts = []
        came()
      }),
    )
    // SETTINGS, or Node sends nothing
    socket.write(Buffer.from('000000040000000000', 'hex'))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const bound = server.address()
  const port = typeof bound === 'object' && bound !== null ? bound.port : 0
  session = connectHttp2(`http://127.0.0.1:${port}`)
  await once(session, 'connect')
})
afterAll(() => {
  session.destroy()
  server.close()
})

/** The block that Node makes of these fields. */
async function blockOf(fields: Readonly<Record<string, string | string[]>>): Promise<Buffer> {
  const { promise, resolve } = Promise.withResolvers<void>()
  blocks = []
  came = resolve
  const stream = session.request({ ':path': '/', ...fields })
  stream.on('error', () => {})
  await promise
  stream.close()
  return blocks[0] ?? Buffer.alloc(0)
}

const name = fc
  .stringMatching(/^[a-z][a-z0-9-]{0,20}$/)
  .filter(
    (it) =>
      !/^(te|host|connection|upgrade|transfer-encoding|keep-alive|proxy-connection|http2-settings|content-length|trailer)$/.test(
        it,
      ),
  )
const value = fc
  .array(fc.oneof(fc.integer({ min: 0x21, max: 0x7e }), fc.integer({ min: 0x80, max: 0xff })), {
    maxLength: 40,
  })
  .map((codes) => String.fromCharCode(...codes))

describe('HPACK', () => {
  it('the code is complete: every string of bits is the beginning of one', () => {
    expect(lengths).toHaveLength(257)
    expect(lengths.reduce((sum, length) => sum + 2 ** (30 - length), 0)).toBe(2 ** 30)
  })

  it('fields that Node encodes are the same fields, by a table that goes on from one block to the next', async () => {
    const hpack = createHpack()
    const decoded = async (fields: Readonly<Record<string, string>>) => {
      const all = hpack.decode(await blockOf(fields)).filter(([it]) => !it.startsWith(':'))
      return Object.fromEntries(all)
    }
    await fc.assert(
      fc.asyncProperty(fc.dictionary(name, value, { maxKeys: 8 }), async (fields) => {
        expect(await decoded(fields)).toEqual({ ...fields })
        // most of it is in the table by now
        expect(await decoded(fields)).toEqual({ ...fields })
      }),
      { numRuns: 150 },
    )
    // every byte that a value may have
    for (let code = 0x21; code < 0x100; code++) {
      if (code === 0x7f) continue
      const text = String.fromCharCode(code).repeat(9)
      expect(await decoded({ 'x-code': text })).toEqual({ 'x-code': text })
    }
  })

  it('what is encoded here is decoded again', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(name, fc.string({ unit: 'grapheme-ascii', maxLength: 300 }))),
        (fields) => {
          expect(createHpack().decode(encodeBlock(fields))).toEqual(fields)
        },
      ),
    )
    const status: Field[] = [[':status', '200']]
    expect(encodeBlock(status)).toEqual(Buffer.from([0x88]))
  })

  it.each([
    ['an index of nothing', 'ff00'],
    ['index 0', '80'],
    ['an integer without end', 'ffffffffffffffff'],
    ['a string after the end', '0005616263'],
    ['padding with a zero', '0001618100'],
    ['a table that is too large', '3fe2ff7f'],
    ['a table resized inside a block', '8220'],
  ])('%s is no block', (_, hex) => {
    expect(() => createHpack().decode(Buffer.from(hex, 'hex'))).toThrow()
  })

  it('any bytes are fields or no block, and end', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
        try {
          createHpack().decode(Buffer.from(bytes))
        } catch {
          // refused
        }
      }),
      { numRuns: 2000 },
    )
    expect(decodeHuffman(Buffer.from('ffffffff', 'hex'), 0, 4)).toBeUndefined()
  })
})
