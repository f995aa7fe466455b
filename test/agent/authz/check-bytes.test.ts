// Our reader of CheckRequests and protobuf-es, which has to understand the same by the same bytes.
import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { questionIn } from '../../../agent/authz/check-question.ts'
import { createIntern } from '../../../agent/authz/intern.ts'
import { CheckRequestSchema } from '../../../proto/gen/envoy/service/auth/v3/external_auth_pb.js'
import { hasCode } from '../../../spiffe/errors.ts'
import { rpc } from './asking.ts'
import { questionOf } from './check-oracle.ts'

/** A map has no order, and of two of one name the last counts. */
const comparable = ({ http, ...rest }: ReturnType<typeof questionIn>) => {
  const fields = typeof http?.headers === 'function' ? http.headers() : (http?.headers ?? [])
  const pairs = fields.flatMap((name, i) => (i % 2 === 0 ? [[name, fields[i + 1]]] : []))
  return { ...rest, http: http && { ...http, headers: pairs.map(String).sort() } }
}

const intern = createIntern()
const ours = (bytes: Uint8Array) => comparable(questionIn(Buffer.from(bytes), intern))
const theirs = (bytes: Uint8Array) => comparable(questionOf(fromBinary(CheckRequestSchema, bytes)))

const refused = 'refused'

/** What comes of it; refusals are alike, whatever they say. */
function outcome(read: typeof ours, bytes: Uint8Array): unknown {
  try {
    return read(bytes)
  } catch (error) {
    // of ours each refusal is one that was meant
    if (read === theirs || hasCode(error, 'ERR_BAD_REQUEST')) return refused
    throw error
  }
}

type Part = readonly [field: number, value: unknown]
const str = fc.oneof(fc.string({ maxLength: 12 }), fc.constantFrom('', 'é', 'a/b', '８'))
const word = fc.constantFrom('x-a', 'x-b', 'accept', 'cookie', ':path', 'x-spiffe-peer-id')
const visible = fc.constantFrom('', 'v', 'a,b', 'é', 'text/html', 'a\tb')

/** Messages as lists of fields, any number of times and in any order: what merging means shows by that. */
const fields = (...kinds: fc.Arbitrary<Part>[]) => fc.array(fc.oneof(...kinds), { maxLength: 5 })
const of = (field: number, value: fc.Arbitrary<unknown>): fc.Arbitrary<Part> =>
  value.map((it) => [field, it] as const)
const port = fc.constantFrom(0, 1, 80, 65_535, 2 ** 32 - 1)
const socketAddress = fields(of(2, str), of(3, port), of(4, str), of(1, fc.constantFrom(0, 1)))
const pipe = fields(of(1, str))
const address = fields(of(1, socketAddress), of(2, pipe), of(3, pipe))
const peer = fields(
  of(1, address),
  of(4, str),
  of(5, fc.constantFrom('', 'PEM', '%20')),
  of(2, str),
)
const entry = fields(of(1, word), of(2, visible)).filter((its) =>
  its.some(([field]) => field === 1),
)
const raw = fc.constantFrom(Buffer.alloc(0), Buffer.from('ff', 'hex'), Buffer.from('raw'))
const headerMap = fields(
  of(
    1,
    fields(of(1, word), of(2, visible), of(3, raw)).filter((its) =>
      its.some(([field]) => field === 1),
    ),
  ),
)
const http = fields(
  of(2, str),
  of(3, entry),
  of(4, str),
  of(5, str),
  of(1, str),
  of(9, port),
  of(11, str),
  of(13, headerMap),
)
const extension = fc
  .tuple(
    fc.constantFrom('castellan.port', 'castellan.backend', 'other', 'castellan.identity-header'),
    fc.constantFrom('80', 'servlet', 'x-caller', '0', 'http', ''),
  )
  .map(
    ([name, value]): Part => [
      10,
      [
        [1, name],
        [2, value],
      ],
    ],
  )
const attributes = fields(
  ...[of(1, peer), of(2, peer), of(4, fields(of(2, http))), extension],
  of(12, fields(of(1, str))),
)
const message = fields(of(1, attributes), of(1, attributes))

function encode(parts: unknown, writer = new BinaryWriter()): BinaryWriter {
  if (!Array.isArray(parts)) throw new Error('no message')
  for (const part of parts) {
    if (!Array.isArray(part)) throw new Error('no field')
    const [field, value]: unknown[] = part
    const number = Number(field)
    if (typeof value === 'number') writer.tag(number, WireType.Varint).uint32(value)
    else if (typeof value === 'string') writer.tag(number, WireType.LengthDelimited).string(value)
    else if (value instanceof Uint8Array) writer.tag(number, WireType.LengthDelimited).bytes(value)
    else {
      writer.tag(number, WireType.LengthDelimited).fork()
      encode(value, writer)
      writer.join()
    }
  }
  return writer
}

describe('a CheckRequest', () => {
  it('as Envoy sends it is understood', () => {
    const check = rpc('/ok?x=1', {
      headers: { cookie: 'a=b' },
      principal: 'spiffe://a/b',
      port: 80,
    })
    const bytes = toBinary(CheckRequestSchema, create(CheckRequestSchema, check))
    expect(ours(bytes)).toEqual(theirs(bytes))
    expect(ours(bytes)).toMatchObject({
      principal: 'spiffe://a/b',
      listener: 80,
      http: { target: '/ok?x=1' },
    })
  })

  it('any fields in any order, again and again, mean what protobuf-es says', () => {
    fc.assert(
      fc.property(message, (parts) => {
        const bytes = encode(parts).finish()
        expect(outcome(ours, bytes)).toEqual(outcome(theirs, bytes))
      }),
      { numRuns: 3000 },
    )
  })

  it('with fields of the future is understood without them', () => {
    const check = create(CheckRequestSchema, rpc('/ok'))
    const known = toBinary(CheckRequestSchema, check)
    const future = new BinaryWriter()
    future.tag(99, WireType.Varint).uint64(2n ** 63n)
    future.tag(98, WireType.Bit64).fixed64(1n)
    future.tag(97, WireType.Bit32).fixed32(1)
    future.tag(96, WireType.LengthDelimited).bytes(Buffer.alloc(300))
    future.tag(95, WireType.StartGroup).tag(1, WireType.StartGroup).tag(1, WireType.EndGroup)
    future.tag(95, WireType.EndGroup)
    const bytes = Buffer.concat([future.finish(), known, future.finish()])
    expect(ours(bytes)).toEqual(ours(known))
  })

  it('that is cut short or damaged is refused or understood, and nothing else', () => {
    const whole = Buffer.from(toBinary(CheckRequestSchema, create(CheckRequestSchema, rpc('/ok'))))
    for (let length = 0; length < whole.length; length++)
      expect(outcome(ours, whole.subarray(0, length))).toEqual(
        outcome(theirs, whole.subarray(0, length)),
      )
    // protobuf-es reads a field of another kind as though it were of its own: there the two may differ
    fc.assert(
      fc.property(fc.nat(whole.length - 1), fc.nat(255), (at, byte) => {
        const damaged = Buffer.from(whole)
        damaged[at] = byte
        outcome(ours, damaged)
      }),
      { numRuns: 3000 },
    )
    fc.assert(fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => void outcome(ours, bytes)))
  })

  it('groups inside of groups come to an end', () => {
    const deep = Buffer.alloc(100_000, Buffer.from([0x0b]))
    expect(outcome(ours, deep)).toBe('refused')
  })
})
