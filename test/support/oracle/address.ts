// IP addresses and blocks as numbers.
import { isIPv4, isIPv6 } from 'node:net'

export interface Address {
  readonly width: 32 | 128
  readonly value: bigint
}

const v4 = (text: string): bigint =>
  text.split('.').reduce((value, part) => value * 256n + BigInt(part), 0n)

/** 128 bits of an IPv6 address without a zone; a dotted end counts as two groups. */
function v6(text: string): bigint {
  const dotted = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(text)
  const last = dotted === null ? 0n : v4(dotted[2] ?? '')
  const hexadecimal =
    dotted === null
      ? text
      : `${dotted[1]}${(last >> 16n).toString(16)}:${(last & 0xffffn).toString(16)}`
  const groups = (part: string) => (part === '' ? [] : part.split(':'))
  const [left = '', right] = hexadecimal.split('::')
  const head = groups(left)
  const end = groups(right ?? '')
  const zeros = Array.from(
    { length: right === undefined ? 0 : 8 - head.length - end.length },
    () => '0',
  )
  return [...head, ...zeros, ...end].reduce(
    (value, group) => value * 65536n + BigInt(`0x${group}`),
    0n,
  )
}

const isMapped = (value: bigint): boolean => value >> 32n === 0xffffn

/** undefined: not an address. `unmap`: `::ffff:a.b.c.d` is `a.b.c.d`. */
export function parseAddress(text: string, unmap: boolean): Address | undefined {
  if (isIPv4(text)) return { width: 32, value: v4(text) }
  if (!isIPv6(text) || text.includes('%')) return undefined
  const value = v6(text)
  return unmap && isMapped(value)
    ? { width: 32, value: value & 0xffff_ffffn }
    : { width: 128, value }
}

/** Whether `block`, an address or a CIDR, holds the address; host bits of the block do not count. */
export function blockHolds(block: string, address: Address, unmap: boolean): boolean {
  const [base = '', length] = block.split('/')
  const written = parseAddress(base, false)
  if (written === undefined) return false
  const prefix = length === undefined ? written.width : Number(length)
  const unmapped = written.width === 128 && unmap && isMapped(written.value) && prefix >= 96
  const width = unmapped ? 32 : written.width
  const value = unmapped ? written.value & 0xffff_ffffn : written.value
  const shift = BigInt(width - (unmapped ? prefix - 96 : prefix))
  return address.width === width && address.value >> shift === value >> shift
}
