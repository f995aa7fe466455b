// Which CRLs go along with roots. A verifier that has one list wants one of every issuer, none of them
// over, or it refuses everybody: so it gets all of them or none.
import { childrenOf, encodedOf, expectTag, parseDer, tags, timeOf } from '../../spiffe/der.ts'
import { hasCode } from '../../spiffe/errors.ts'
import type { Trust } from '../trust.ts'

interface Crl {
  readonly der: Uint8Array
  /** encoded Name */
  readonly issuer: Uint8Array
  /** milliseconds since the epoch */
  readonly nextUpdate: number
}

export interface CrlSet {
  /** DER; of every authority, or none */
  readonly crls: readonly Uint8Array[]
  /** milliseconds since the epoch at which the first of them is over */
  readonly until?: number
  /** why there are none though there are lists */
  readonly problem?: string
}

const none: CrlSet = { crls: [] }

/** Issuer and nextUpdate of a version 2 list (RFC 5280 §5.1). Throws ERR_DER. */
function crlOf(der: Uint8Array): Crl {
  const [tbs] = childrenOf(parseDer(der), 3)
  const [, , issuer, , nextUpdate] = childrenOf(expectTag(tbs, tags.sequence), 7)
  return {
    der,
    issuer: encodedOf(expectTag(issuer, tags.sequence)),
    nextUpdate: timeOf(nextUpdate),
  }
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
  }
}
