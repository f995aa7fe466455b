// Name constraints (RFC 5280 §4.2.1.10), for URI, DNS, e-mail, IP and directory names.
import { childrenOf, derError, type Element, readElement } from './der.ts'
import { type GeneralName, generalNameOf } from './general-name.ts'

export interface NameConstraints {
  readonly permitted: readonly GeneralName[]
  readonly excluded: readonly GeneralName[]
}

/** 4 or 16 bytes of address and as many of mask, the ones of the mask first (RFC 4632). */
function isAddressAndMask(value: Uint8Array): boolean {
  if (value.length !== 8 && value.length !== 32) return false
  const mask = Buffer.from(value.subarray(value.length / 2)).toString('hex')
  const bits = BigInt(`0x${mask}`)
    .toString(2)
    .padStart(value.length * 4, '0')
  return !bits.includes('01')
}

function subtreesOf(list: Element): GeneralName[] {
  const names = childrenOf(list, 256).map((subtree) => {
    const [base, ...rest] = childrenOf(subtree, 3)
    // minimum 0 is the default and never written, maximum must be absent
    if (base === undefined || rest.length > 0)
      return derError('a subtree with minimum or maximum', subtree.start)
    const name = generalNameOf(base)
    if (name.kind === 'ip' && !isAddressAndMask(name.value))
      return derError('an ip constraint that is no address and mask', base.start)
    return name
  })
  return names.length === 0 ? derError('an empty list of subtrees', list.start) : names
}

export function nameConstraintsOf(value: Element): NameConstraints {
  const parts = childrenOf(value, 2)
  const order = parts.map((part) => part.tag).join()
  if (!['160', '161', '160,161'].includes(order))
    return derError('malformed name constraints', value.start)
  const permitted = parts.find((part) => part.tag === 0xa0)
  const excluded = parts.find((part) => part.tag === 0xa1)
  return {
    permitted: permitted === undefined ? [] : subtreesOf(permitted),
    excluded: excluded === undefined ? [] : subtreesOf(excluded),
  }
}

/** A host constraint without leading dot names that host and, for DNS, everything below it. */
function hostMatches(host: string, base: string, options: { withSubdomains: boolean }): boolean {
  const name = host.toLowerCase()
  const wanted = base.toLowerCase()
  if (wanted === '') return true
  if (wanted.startsWith('.')) return name.endsWith(wanted) && name.length > wanted.length
  return name === wanted || (options.withSubdomains && name.endsWith(`.${wanted}`))
}

/** The host of a URI; undefined when it has none that a constraint could speak of. */
function hostOf(uri: string): string | undefined {
  const host = /^[a-z][a-z0-9+.-]*:\/\/(?:[^/?#@]*@)?([^/?#:@[\]]+)(?::\d*)?(?:[/?#]|$)/i.exec(
    uri,
  )?.[1]
  return host === undefined || /^[\d.]+$/.test(host) ? undefined : host
}

function ipMatches(address: Uint8Array, base: Uint8Array): boolean {
  const wanted = base.subarray(0, address.length)
  const mask = base.subarray(address.length)
  if (mask.length !== address.length) return false
  const masked = (bytes: Uint8Array) => Buffer.from(mask.map((bits, i) => bits & Number(bytes[i])))
  return masked(address).equals(masked(wanted))
}

/** RDNs of the base have to be the first RDNs of the name, byte by byte. */
function directoryMatches(name: Uint8Array, base: Uint8Array): boolean {
  const own = childrenOf(readElement(name, 0, name.length))
  const wanted = childrenOf(readElement(base, 0, base.length))
  return wanted.every((rdn, i) => {
    const mine = own[i]
    return (
      mine !== undefined &&
      Buffer.compare(name.subarray(mine.start, mine.end), base.subarray(rdn.start, rdn.end)) === 0
    )
  })
}

function emailMatches(email: string, base: string): boolean | 'unknown' {
  const at = email.lastIndexOf('@')
  if (at < 1) return 'unknown'
  if (base.includes('@')) {
    const wanted = base.lastIndexOf('@')
    const local = email.slice(0, at) === base.slice(0, wanted)
    return local && email.slice(at).toLowerCase() === base.slice(wanted).toLowerCase()
  }
  return hostMatches(email.slice(at + 1), base, { withSubdomains: false })
}

/** Whether `name` lies in the subtree of `base`, which is of the same kind; 'unknown' fails closed. */
function lies(name: GeneralName, base: GeneralName): boolean | 'unknown' {
  if (name.kind === 'uri' && base.kind === 'uri') {
    const host = hostOf(name.value)
    return host === undefined ? 'unknown' : hostMatches(host, base.value, { withSubdomains: false })
  }
  if (name.kind === 'dns' && base.kind === 'dns') {
    return hostMatches(name.value, base.value, { withSubdomains: true })
  }
  if (name.kind === 'email' && base.kind === 'email') return emailMatches(name.value, base.value)
  if (name.kind === 'ip' && base.kind === 'ip') return ipMatches(name.value, base.value)
  if (name.kind === 'directory' && base.kind === 'directory') {
    return directoryMatches(name.value, base.value)
  }
  return 'unknown'
}

function sameKind(a: GeneralName, b: GeneralName): boolean {
  return a.kind === b.kind && (a.kind !== 'other' || (b.kind === 'other' && a.tag === b.tag))
}

/** Says why `names` break the constraints; undefined when they do not. */
export function constraintProblem(
  constraints: NameConstraints,
  names: readonly GeneralName[],
): string | undefined {
  for (const name of names) {
    const excluded = constraints.excluded.filter((base) => sameKind(name, base))
    if (excluded.some((base) => lies(name, base) !== false)) return `an excluded ${name.kind} name`
    const permitted = constraints.permitted.filter((base) => sameKind(name, base))
    if (permitted.length > 0 && !permitted.some((base) => lies(name, base) === true)) {
      return `a ${name.kind} name that is not permitted`
    }
  }
  return undefined
}
