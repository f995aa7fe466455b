// Which CRLs go along with roots. A verifier that has one list wants one of every issuer, none of them
// over, or it refuses everybody: so it gets all of them or none.
import { type Serial, serialOf } from '../../spiffe/certificate.ts'
import {
  childrenOf,
  type Element,
  encodedOf,
  expectTag,
  integerOf,
  parseDer,
  tags,
  timeOf,
} from '../../spiffe/der.ts'
import { hasCode } from '../../spiffe/errors.ts'
import type { Trust } from '../trust.ts'

interface Crl {
  readonly der: Uint8Array
  /** encoded Name */
  readonly issuer: Uint8Array
  /** milliseconds since the epoch */
  readonly nextUpdate: number
  readonly serials: readonly Serial[]
}

export interface CrlSet {
  /** DER; of every authority, or none */
  readonly crls: readonly Uint8Array[]
  /** milliseconds since the epoch at which the first of them is over */
  readonly until?: number
  /** of the certificates that they name */
  readonly serials?: ReadonlySet<Serial>
  /** why there are none though there are lists */
  readonly problem?: string
}

const none: CrlSet = { crls: [] }

const mostRevoked = 1_000_000

/** revokedCertificates; left out where there are none. */
function serialsIn(list: Element | undefined): Serial[] {
  if (list?.tag !== tags.sequence) return []
  return childrenOf(list, mostRevoked).map((entry) => {
    const [serial] = childrenOf(expectTag(entry, tags.sequence), 3)
    return serialOf(integerOf(serial))
  })
}

const read = new WeakMap<Uint8Array, Crl>()

/** What is needed of a version 2 list (RFC 5280 §5.1). Throws ERR_DER. */
function crlOf(der: Uint8Array): Crl {
  const known = read.get(der)
  if (known !== undefined) return known
  const [tbs] = childrenOf(parseDer(der), 3)
  const [, , issuer, , nextUpdate, list] = childrenOf(expectTag(tbs, tags.sequence), 7)
  const crl = {
    der,
    issuer: encodedOf(expectTag(issuer, tags.sequence)),
    nextUpdate: timeOf(nextUpdate),
    serials: serialsIn(list),
  }
  read.set(der, crl)
  return crl
}

/** Those of `lists` that the authorities of this bundle have signed. */
export function crlsOf({ x509 }: Trust, lists: readonly Uint8Array[], now: number): CrlSet {
  if (lists.length === 0) return none
  let valid: readonly Crl[]
  try {
    valid = lists.map(crlOf).filter(({ nextUpdate }) => nextUpdate > now)
  } catch (error) {
    if (!hasCode(error)) throw error
    return { ...none, problem: error.message }
  }
  const found = x509.authorities.map(({ subject }) =>
    valid.find(({ issuer }) => Buffer.compare(issuer, subject) === 0),
  )
  const crls = found.filter((it) => it !== undefined)
  if (crls.length < found.length)
    return { ...none, problem: `${found.length - crls.length} of ${found.length} are missing` }
  if (crls.length === 0) return none
  return {
    crls: crls.map(({ der }) => der),
    until: Math.min(...crls.map(({ nextUpdate }) => nextUpdate)),
    serials: new Set(crls.flatMap(({ serials }) => serials)),
  }
}
