import fc from 'fast-check'
import { expect, test } from 'vitest'
import { createFrameReader, encodeFrame } from '../../../runtime/grpc/frame.ts'
import { IdentityError } from '../../../spiffe/errors.ts'

/** The naive way: all bytes at once, one slice after the other. */
function oracle(bytes: Uint8Array): { messages: Uint8Array[]; partial: boolean } {
  const messages: Uint8Array[] = []
  let rest = Buffer.from(bytes)
  while (rest.length >= 5 && rest.length >= 5 + rest.readUInt32BE(1)) {
    const end = 5 + rest.readUInt32BE(1)
    messages.push(Uint8Array.from(rest.subarray(5, end)))
    rest = rest.subarray(end)
  }
  return { messages, partial: rest.length > 0 }
}

function cut(bytes: Uint8Array, at: readonly number[]): Uint8Array[] {
  const places = [...new Set(at.map((place) => place % (bytes.length + 1)))].sort((a, b) => a - b)
  return [0, ...places].map((from, i) => bytes.subarray(from, places[i] ?? bytes.length))
}

function readAll(chunks: readonly Uint8Array[], limit = 1024) {
  const messages: Uint8Array[] = []
  const reader = createFrameReader(limit, (bytes) => messages.push(Uint8Array.from(bytes)))
  for (const chunk of chunks) reader.push(chunk)
  return { messages, partial: reader.partial }
}

const message = fc.uint8Array({ maxLength: 300 })

test('any chunking gives the messages and the rest that the oracle sees', () => {
  fc.assert(
    fc.property(
      fc.array(message, { maxLength: 8 }),
      fc.nat(400),
      fc.array(fc.nat(), { maxLength: 12 }),
      (messages, lost, cuts) => {
        const whole = Buffer.concat(messages.map(encodeFrame))
        const bytes = whole.subarray(0, Math.max(0, whole.length - lost))
        expect(readAll(cut(bytes, cuts))).toEqual(oracle(bytes))
      },
    ),
  )
})

test('one byte at a time gives the same as all at once', () => {
  fc.assert(
    fc.property(fc.array(message, { maxLength: 4 }), (messages) => {
      const bytes = Buffer.concat(messages.map(encodeFrame))
      const single = Array.from(bytes, (byte) => Uint8Array.of(byte))
      expect(readAll(single)).toEqual({ messages, partial: false })
    }),
  )
})

test('a message over the limit is refused on its prefix alone', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1025, max: 0xffffffff }), (length) => {
      const prefix = Buffer.alloc(5)
      prefix.writeUInt32BE(length, 1)
      const refusal = new IdentityError(
        'ERR_TOO_LARGE',
        `message of ${length} bytes is over the limit of 1024`,
      )
      expect(() => readAll([prefix])).toThrow(refusal)
    }),
  )
})

test('a message of exactly the limit passes', () => {
  const { messages } = readAll([encodeFrame(new Uint8Array(1024))])
  expect(messages.map(({ length }) => length)).toEqual([1024])
})

test.each([
  [1, 'ERR_UNIMPLEMENTED', 'compressed messages are not supported'],
  [2, 'ERR_BAD_REQUEST', 'message has unknown flags 2'],
  [255, 'ERR_BAD_REQUEST', 'message has unknown flags 255'],
] as const)('flag %i is refused with %s', (flag, code, text) => {
  const prefix = Uint8Array.of(flag, 0, 0, 0, 1)
  expect(() => readAll([prefix])).toThrow(expect.objectContaining({ code, message: text }))
})
