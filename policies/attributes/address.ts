// IP addresses and blocks, parsed once: a connection's address is compared with blocks by a mask and a
// look into a set, one for each length of prefix.
import { isIPv4, isIPv6 } from 'node:net'

/** An address; `bits` is 32 or 128. Equal addresses have equal values. */
export interface IpAddress {
  readonly bits: 32 | 128
  readonly value: bigint
}

/** An address and how many of its first bits count. */
export interface IpBlock extends IpAddress {
  readonly prefix: number
}

const dot = 46
const zero = 48

function valueOfV4(text: string): bigint {
  let [value, part] = [0, 0]
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code === dot) {
      value = value * 256 + part
      part = 0
    } else part = part * 10 + code - zero
  }
  return BigInt(value * 256 + part)
}

function groupsOf(text: string): bigint[] {
  if (text === '') return []
  return text.split(':').flatMap((group) => {
    if (!group.includes('.')) return [BigInt(`0x${group}`)]
    const v4 = valueOfV4(group)
    return [v4 >> 16n, v4 & 0xffffn]
  })
}

function valueOfV6(text: string): bigint {
  const [head = '', tail] = text.split('::')
  const [first, last] = [groupsOf(head), groupsOf(tail ?? '')]
  const zeros = Array.from({ length: 8 - first.length - last.length }, () => 0n)
  return [...first, ...zeros, ...last].reduce((value, group) => (value << 16n) | group, 0n)
}

/** Undefined for what is no address: names, zones, leading zeros. */
export function parseAddress(text: string): IpAddress | undefined {
  if (isIPv4(text)) return { bits: 32, value: valueOfV4(text) }
  if (isIPv6(text) && !text.includes('%')) return { bits: 128, value: valueOfV6(text) }
  return undefined
}

const mappedPrefix = 0xffffn

/** `::ffff:10.1.1.1` as the IPv4 address that it is. */
export function unmapped(address: IpAddress): IpAddress {
  if (address.bits === 32 || address.value >> 32n !== mappedPrefix) return address
  return { bits: 32, value: address.value & 0xffff_ffffn }
}

function masked(value: bigint, bits: number, prefix: number): bigint {
  return value >> BigInt(bits - prefix)
}

/** `10.0.0.0/8`, `2001:db8::/32`, or one address. Undefined for anything else. */
export function parseBlock(text: string): IpBlock | undefined {
  const slash = text.indexOf('/')
  const address = parseAddress(slash < 0 ? text : text.slice(0, slash))
  if (address === undefined) return undefined
  if (slash < 0) return { ...address, prefix: address.bits }
  const length = text.slice(slash + 1)
  if (!/^(?:0|[1-9]\d{0,2})$/.test(length) || Number(length) > address.bits) return undefined
  return { ...address, prefix: Number(length) }
}

/** The same for a block of such addresses. */
export function unmappedBlock(block: IpBlock): IpBlock {
  if (block.prefix < 96) return block
  const { bits, value } = unmapped(block)
  return bits === 32 && block.bits === 128 ? { bits, value, prefix: block.prefix - 96 } : block
}

/** Whether an address lies in any of the blocks. Blocks that are no blocks match nothing. */
export type IpSet = (address: IpAddress) => boolean

export function ipSet(blocks: readonly IpBlock[]): IpSet {
  const tables = new Map<number, Set<bigint>>()
  for (const { bits, value, prefix } of blocks) {
    const key = bits * 256 + prefix
    const known = tables.get(key) ?? new Set()
    tables.set(key, known.add(masked(value, bits, prefix)))
  }
  const rows = [...tables].map(([key, values]) => ({
    bits: key >= 128 * 256 ? 128 : 32,
    prefix: key % 256,
    values,
  }))
  return (address) =>
    rows.some(
      ({ bits, prefix, values }) =>
        bits === address.bits && values.has(masked(address.value, bits, prefix)),
    )
}

/** As people write it; IPv6 without shortening. */
export function addressText({ bits, value }: IpAddress): string {
  if (bits === 32) return [24n, 16n, 8n, 0n].map((shift) => (value >> shift) & 0xffn).join('.')
  return Array.from({ length: 8 }, (_, i) =>
    ((value >> BigInt(112 - 16 * i)) & 0xffffn).toString(16),
  ).join(':')
}
