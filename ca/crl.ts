// Certificate revocation lists (RFC 5280 §5), for programs that know no deny-list.
import { type KeyObject, sign } from 'node:crypto'
import { extensionOids, type Serial } from '../spiffe/certificate.ts'
import * as der from '../spiffe/der-writer.ts'
import { ecdsaWithSha256, wrapSigned } from './profile.ts'

export interface CrlFields {
  /** Name of the authority, DER */
  readonly issuer: Uint8Array
  readonly authorityKeyId: Uint8Array
  /** larger than that of any list before (§5.2.3) */
  readonly number: number
  /** milliseconds since the epoch, like all times here */
  readonly thisUpdate: number
  readonly nextUpdate: number
  readonly revoked: readonly { readonly serial: Serial; readonly at: number }[]
}

const version2 = der.integer(Buffer.of(1))
const crlNumber = '2.5.29.20'
const notCritical = { critical: false } as const

function magnitudeOf(value: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt(value))
  return bytes
}

/** A signed list, DER; `key` is the P-256 key of its issuer. */
export function signCrl(fields: CrlFields, key: KeyObject): Buffer {
  const { issuer, authorityKeyId, number, thisUpdate, nextUpdate, revoked } = fields
  const entries = revoked.map(({ serial, at }) =>
    der.sequence(der.integer(Buffer.from(serial, 'hex')), der.time(at)),
  )
  const authority = der.sequence(der.element(0x80, authorityKeyId))
  const extensions = der.sequence(
    der.extension(extensionOids.authorityKeyIdentifier, authority, notCritical),
    der.extension(crlNumber, der.integer(magnitudeOf(number)), notCritical),
  )
  const tbs = der.sequence(
    version2,
    ecdsaWithSha256,
    issuer,
    der.time(thisUpdate),
    der.time(nextUpdate),
    // an empty list has to be left out
    ...(entries.length === 0 ? [] : [der.sequence(...entries)]),
    der.element(0xa0, extensions),
  )
  return wrapSigned(tbs, sign('sha256', tbs, key))
}
