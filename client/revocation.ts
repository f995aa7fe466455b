// Certificates that were taken back before their time, as the revocation lists of the Workload API name
// them (RFC 5280 §5). A list only ever takes trust away: one that is missing or over changes nothing.
import { type Serial, serialOf } from '../spiffe/certificate.ts'
import {
  childrenOf,
  derError,
  type Element,
  encodedOf,
  expectTag,
  integerOf,
  parseDer,
  readElement,
  tags,
  timeOf,
  wholeBitsOf,
} from '../spiffe/der.ts'
import { IdentityError } from '../spiffe/errors.ts'
import type { Path } from '../spiffe/path.ts'
import { importPublicKey, type Signed, signatureProblem } from '../spiffe/signature.ts'

interface RevocationList extends Signed {
  /** encoded Name */
  readonly issuer: Uint8Array
  readonly serials: ReadonlySet<Serial>
}

/** Says which certificate of a verified path was revoked; undefined when none was. */
export type Revocation = (path: Path) => string | undefined

const mostSerials = 1_000_000

function serialsOf(list: Element | undefined): Set<Serial> {
  const serials = new Set<Serial>()
  if (list === undefined) return serials
  for (let at = list.body; at < list.end; ) {
    const entry = expectTag(readElement(list.bytes, at, list.end), tags.sequence)
    serials.add(serialOf(integerOf(childrenOf(entry, 3)[0])))
    if (serials.size > mostSerials) return derError(`more than ${mostSerials} serials`, at)
    at = entry.end
  }
  return serials
}

function listOf(der: Uint8Array): RevocationList {
  const [tbs, algorithm, signature] = childrenOf(parseDer(der), 3)
  const fields = childrenOf(expectTag(tbs, tags.sequence), 7)
  // absent in version 1
  if (fields[0]?.tag === tags.integer) fields.shift()
  const [, issuer, thisUpdate, ...rest] = fields
  timeOf(thisUpdate)
  return {
    tbs: encodedOf(expectTag(tbs, tags.sequence)),
    signatureAlgorithm: encodedOf(expectTag(algorithm, tags.sequence)),
    signature: wholeBitsOf(signature),
    issuer: encodedOf(expectTag(issuer, tags.sequence)),
    serials: serialsOf(rest.find(({ tag }) => tag === tags.sequence)),
  }
}

/** Reads all of `crls` (DER). Throws ERR_CERTIFICATE: what cannot be read may revoke anything. */
export function revocationOf(crls: readonly Uint8Array[]): Revocation {
  let lists: readonly RevocationList[]
  try {
    lists = crls.map(listOf)
  } catch (cause) {
    throw new IdentityError('ERR_CERTIFICATE', 'malformed revocation list', { cause })
  }
  return (path) => {
    for (const [i, { serial }] of path.entries()) {
      const issuer = path[i + 1]
      if (issuer === undefined) return undefined
      const isSigned = (list: RevocationList) =>
        signatureProblem(list, importPublicKey(issuer.publicKey)) === undefined
      // authorities of one trust domain may share their name: only a signature tells whose list it is
      const found = lists
        .filter(({ serials }) => serials.has(serial))
        .filter((list) => Buffer.compare(list.issuer, issuer.subject) === 0)
      if (found.some(isSigned)) return `certificate ${serial} was revoked`
    }
    return undefined
  }
}
