// Certification path validation (RFC 5280 §6.1) from a leaf to the roots of one bundle.
import { type Certificate, extensionOids, hasUsage, keyUsages } from './certificate.ts'
import { explain } from './errors.ts'
import type { GeneralName } from './general-name.ts'
import { constraintProblem } from './name-constraints.ts'
import { importPublicKey, signatureProblem } from './signature.ts'

/** Leaf first, root last. */
export type Path = readonly [Certificate, ...Certificate[]]

export type PathResult =
  | { readonly ok: true; readonly path: Path }
  | { readonly ok: false; readonly reason: string }

export interface PathOptions {
  /** milliseconds since the epoch */
  readonly now: number
  /** certificates between leaf and root */
  readonly longest?: number
}

// What a hostile chain can make us verify, at most.
const mostSignatures = 32
const mostIntermediates = 8
const understood = new Set<string>(Object.values(extensionOids))
const anyPurpose = '2.5.29.37.0'
const peerPurposes = ['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2']

const same = (a: Uint8Array, b: Uint8Array) => Buffer.compare(a, b) === 0
const isSelfIssued = (it: Certificate) => same(it.issuer, it.subject)

/** What RFC 5280 §6.1.3 asks of every certificate of a path, the root included. */
function commonProblem(it: Certificate, now: number): string | undefined {
  if (now < it.notBefore) return `not valid before ${new Date(it.notBefore).toISOString()}`
  if (now > it.notAfter) return `expired at ${new Date(it.notAfter).toISOString()}`
  for (const [id, { critical }] of it.extensions) {
    if (critical && !understood.has(id)) return `an unknown critical extension ${id}`
  }
  return undefined
}

/** What §6.1.4 asks of a certificate that signs others; `below` = how many non-self-issued CAs follow. */
function authorityProblem(it: Certificate, below: number): string | undefined {
  if (!it.isCa) return 'signed by a certificate that is no CA'
  if (!it.hasSubject) return 'signed by a CA without a subject'
  if (it.keyUsage !== undefined && !hasUsage(it, keyUsages.keyCertSign)) {
    return 'signed by a CA whose key usage lacks keyCertSign'
  }
  if (it.pathLength !== undefined && below > it.pathLength)
    return 'a path longer than its CA allows'
  const purposes = it.extendedKeyUsage
  const allows = (purpose: string) => purposes?.includes(purpose) || purposes?.includes(anyPurpose)
  if (purposes !== undefined && !peerPurposes.every(allows)) {
    return 'signed by a CA whose extended key usage excludes TLS'
  }
  return undefined
}

function namesOf(it: Certificate): GeneralName[] {
  return it.hasSubject ? [...it.names, { kind: 'directory', value: it.subject }] : [...it.names]
}

/** Name constraints of each CA bind every certificate below it, self-issued CAs excepted (§6.1.3 b). */
function namesProblem(path: Path): string | undefined {
  for (const [depth, authority] of path.entries()) {
    const constraints = authority.nameConstraints
    if (constraints === undefined) continue
    for (const [i, it] of path.slice(0, depth).entries()) {
      if (i > 0 && isSelfIssued(it)) continue
      const problem = constraintProblem(constraints, namesOf(it))
      if (problem !== undefined) return `${problem} under name constraints`
    }
  }
  return undefined
}

/** Everything but signatures, which the search has verified. */
function pathProblem(path: Path, now: number): string | undefined {
  let below = 0
  for (const [depth, it] of path.entries()) {
    const problem = commonProblem(it, now) ?? (depth > 0 ? authorityProblem(it, below) : undefined)
    if (problem !== undefined) return depth === 0 ? problem : `issuer ${depth}: ${problem}`
    if (depth > 0 && !isSelfIssued(it)) below++
  }
  return namesProblem(path)
}

/** What `check` says or throws. */
function attempt(check: () => string | undefined): string | undefined {
  try {
    return check()
  } catch (error) {
    return explain(error)
  }
}

/**
 * Searches a path from `leaf` over `intermediates` to one of `roots` and validates it. The answer's
 * `reason` is that of the first path that reached a root, else of the first wrong signature. Bounded:
 * at most 8 intermediates are looked at and 32 signatures verified.
 */
export function validatePath(
  leaf: Certificate,
  intermediates: readonly Certificate[],
  roots: readonly Certificate[],
  options: PathOptions,
): PathResult {
  const { now, longest = mostIntermediates } = options
  if (intermediates.length > mostIntermediates) {
    return {
      ok: false,
      reason: `${intermediates.length} intermediates (at most ${mostIntermediates})`,
    }
  }
  const weak = attempt(() => void importPublicKey(leaf.publicKey))
  if (weak !== undefined) return { ok: false, reason: weak }
  let signatures = 0
  let wrongSignature: string | undefined
  let wrongPath: string | undefined

  function isSignedBy(it: Certificate, issuer: Certificate): boolean {
    if (!same(it.issuer, issuer.subject) || signatures >= mostSignatures) return false
    signatures++
    const problem = attempt(() => signatureProblem(it, importPublicKey(issuer.publicKey)))
    wrongSignature ??= problem
    return problem === undefined
  }

  function search(path: Path, top: Certificate): Path | undefined {
    for (const root of roots) {
      if (!isSignedBy(top, root)) continue
      const whole: Path = [...path, root]
      const problem = pathProblem(whole, now)
      if (problem === undefined) return whole
      wrongPath ??= problem
    }
    if (path.length > longest) return undefined
    for (const next of intermediates) {
      if (path.includes(next) || !isSignedBy(top, next)) continue
      const found = search([...path, next], next)
      if (found !== undefined) return found
    }
    return undefined
  }

  const path = search([leaf], leaf)
  if (path !== undefined) return { ok: true, path }
  return { ok: false, reason: wrongPath ?? wrongSignature ?? 'no path to a root of the bundle' }
}
