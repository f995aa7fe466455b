// X509-SVIDs: what makes a certificate an identity, and how one is verified (X509-SVID §5).
import type { BundleSource } from './bundle.ts'
import {
  type Certificate,
  extensionOids,
  hasUsage,
  keyUsages,
  parseCertificate,
} from './certificate.ts'
import { IdentityError } from './errors.ts'
import { isSpiffeId, parseSpiffeId, pathOf, type SpiffeId, trustDomainOf } from './id.ts'
import { type Matcher, matchAny } from './match.ts'
import { type Path, validatePath } from './path.ts'

export interface X509Svid {
  readonly id: SpiffeId
  readonly leaf: Certificate
  /** leaf first, the root of the bundle last */
  readonly path: Path
}

export const serverAuth = '1.3.6.1.5.5.7.3.1'
export const clientAuth = '1.3.6.1.5.5.7.3.2'

type Check = (leaf: Certificate) => string | undefined

/** The leaf's rules by name, in the order of X509-SVID §2 to §4; each says what is wrong. */
export const leafChecks: Readonly<Record<string, Check>> = {
  'one URI SAN': (leaf) => {
    const count = leaf.names.filter((name) => name.kind === 'uri').length
    return count === 1 ? undefined : `${count} URI names instead of exactly one`
  },
  'the URI SAN is a SPIFFE ID': (leaf) =>
    uriOf(leaf).some(isSpiffeId) ? undefined : 'a URI name that is no SPIFFE ID',
  'the ID has a path': (leaf) =>
    uriOf(leaf)
      .filter(isSpiffeId)
      .some((id) => pathOf(id) !== '')
      ? undefined
      : 'a SPIFFE ID without a path',
  'critical SAN without subject': (leaf) =>
    leaf.hasSubject || leaf.extensions.get(extensionOids.subjectAltName)?.critical
      ? undefined
      : 'an empty subject beside a subject alternative name that is not critical',
  'no CA': (leaf) => (leaf.isCa ? 'a CA certificate, which never authenticates' : undefined),
  'critical key usage': (leaf) =>
    leaf.extensions.get(extensionOids.keyUsage)?.critical ? undefined : 'no critical key usage',
  'digitalSignature only': (leaf) => {
    if (!hasUsage(leaf, keyUsages.digitalSignature)) return 'a key usage without digitalSignature'
    if (hasUsage(leaf, keyUsages.keyCertSign)) return 'a key usage with keyCertSign'
    return hasUsage(leaf, keyUsages.cRLSign) ? 'a key usage with cRLSign' : undefined
  },
  'server and client purpose': ({ extendedKeyUsage: purposes }) =>
    purposes === undefined || (purposes.includes(serverAuth) && purposes.includes(clientAuth))
      ? undefined
      : 'an extended key usage without both serverAuth and clientAuth',
}

function uriOf(leaf: Certificate): string[] {
  return leaf.names.flatMap((name) => (name.kind === 'uri' ? [name.value] : []))
}

function untrusted(reason: string, cause?: unknown): never {
  throw new IdentityError('ERR_UNTRUSTED', reason, { cause })
}

/** The SPIFFE ID of a leaf that keeps every rule of a leaf. Throws ERR_UNTRUSTED naming the broken one. */
export function leafIdOf(leaf: Certificate): SpiffeId {
  for (const check of Object.values(leafChecks)) {
    const problem = check(leaf)
    if (problem !== undefined) return untrusted(problem)
  }
  // exactly one by now
  return parseSpiffeId(uriOf(leaf).join())
}

export interface VerifyOptions {
  /** milliseconds since the epoch */
  readonly now: number
  /** whom to accept; any member of a known trust domain when left out */
  readonly match?: Matcher
}

/**
 * Verifies a peer's chain (DER, leaf first): the leaf's rules, then a path to the bundle of the leaf's
 * own trust domain and to no other, then the matcher. Throws ERR_UNTRUSTED with the reason.
 */
export function verifySvid(
  chain: readonly Uint8Array[],
  bundles: BundleSource,
  options: VerifyOptions,
): X509Svid {
  const [leaf, ...intermediates] = chain.slice(0, 10).map(parsed)
  if (leaf === undefined) return untrusted('no certificate')
  const id = leafIdOf(leaf)
  const bundle = bundles(trustDomainOf(id))
  if (bundle === undefined)
    return untrusted(`trust domain ${trustDomainOf(id)} is not trusted here`)
  const result = validatePath(leaf, intermediates, bundle.authorities, { now: options.now })
  if (!result.ok) return untrusted(`${id}: ${result.reason}`)
  const mismatch = (options.match ?? matchAny)(id)
  if (mismatch !== undefined) return untrusted(mismatch)
  return { id, leaf, path: result.path }
}

function parsed(der: Uint8Array): Certificate {
  try {
    return parseCertificate(der)
  } catch (cause) {
    return untrusted('unreadable certificate', cause)
  }
}
