// Addresses and blocks. `::ffff:10.1.1.1` is 10.1.1.1 wherever strict compares: so each block of IPv4 is also
// asked for as the block of such addresses, and a block of IPv6 that holds these does not speak of them.
import {
  addressText,
  type IpAddress,
  type IpBlock,
  ipSet,
  parseAddress,
  parseBlock,
  unmappedBlock,
} from '../attributes/address.ts'
import { exactly, type Lower } from './lowering.ts'
import {
  type AddressInput,
  all,
  always,
  any,
  type Block,
  isNever,
  never,
  not,
  type Predicate,
} from './predicate.ts'

const mappedPrefix = 96
const mapped = { address: '::ffff:0:0', prefix: mappedPrefix }
const everything: readonly Block[] = [
  { address: '0.0.0.0', prefix: 0 },
  { address: '::', prefix: 0 },
]

const isV4 = ({ bits }: IpBlock) => bits === 32

function blocksOf(block: IpBlock): readonly Block[] {
  const { prefix, bits, value } = block
  const plain = { address: addressText(block), prefix }
  if (bits === 128) return [plain]
  const twin: IpAddress = { bits: 128, value: (0xffffn << 32n) | value }
  return [plain, { address: addressText(twin), prefix: mappedPrefix + prefix }]
}

const someMapped = parseAddress('::ffff:0.0.0.0')
const holdsMapped = (block: IpBlock) =>
  block.prefix < mappedPrefix && someMapped !== undefined && ipSet([block])(someMapped)

/** Whether an address, as strict reads it, lies in any of the blocks. */
function inAny(input: AddressInput, written: readonly IpBlock[]): Predicate {
  const blocks = written.map(unmappedBlock)
  const within = (some: readonly IpBlock[]): Predicate =>
    some.length === 0 ? never : { kind: 'address', input, blocks: some.flatMap(blocksOf) }
  const wide = blocks.filter((it) => !isV4(it) && holdsMapped(it))
  const others = blocks.filter((it) => !wide.includes(it))
  const isMapped: Predicate = { kind: 'address', input, blocks: [mapped] }
  return any(within(others), all(within(wide), not(isMapped)))
}

const parsed = (texts: readonly string[]) => texts.flatMap((text) => parseBlock(text) ?? [])

interface Polarity {
  readonly isNegated: boolean
  readonly isWidest: boolean
}

/** What has no address, such as a peer on a unix socket, is in no block. */
function polar(input: AddressInput, named: Predicate, { isNegated, isWidest }: Polarity) {
  if (!isNegated) return named
  if (isWidest) return not(named)
  return all({ kind: 'address', input, blocks: everything }, not(named))
}

export const peerAddress: Lower = ({ texts, isNegated }, { quantifier }) =>
  exactly(
    polar('peer', inAny('peer', parsed(texts)), { isNegated, isWidest: quantifier === 'widest' }),
  )

/** X-Forwarded-For counts when it comes from a trusted proxy; otherwise the client is the peer. */
export const clientAddress: Lower = ({ texts, isNegated, protocol }, { mesh, quantifier }) => {
  const polarity = { isNegated, isWidest: quantifier === 'widest' }
  const blocks = parsed(texts)
  const ofPeer = polar('peer', inAny('peer', blocks), polarity)
  // only HTTP says on whose behalf somebody asks
  const counts = protocol === 'http' && mesh.trustedHops > 0
  const isProxy = counts ? inAny('peer', mesh.trustedProxies) : never
  if (isNever(isProxy)) return exactly(ofPeer)
  const ofClient = polar('client', inAny('client', blocks), polarity)
  const predicate = any(all(isProxy, ofClient), all(not(isProxy), ofPeer))
  return { ok: true, predicate, demand: 'client-address' }
}

export const destinationAddress: Lower = ({ texts, isNegated, ip }, { quantifier }) => {
  const blocks = parsed(texts)
  if (ip !== undefined) {
    const isIn = ipSet(blocks.map(unmappedBlock))(ip)
    return exactly(isIn !== isNegated ? always : never)
  }
  const polarity = { isNegated, isWidest: quantifier === 'widest' }
  return exactly(polar('destination', inAny('destination', blocks), polarity))
}
