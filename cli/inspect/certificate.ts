// A certificate by the rules of X509-SVID §2 to §5: those of a leaf, or those of a signing certificate.
import { X509Certificate } from 'node:crypto'
import {
  type Certificate,
  extensionOids,
  fingerprintOf,
  hasUsage,
  keyUsages,
  parseCertificate,
} from '../../spiffe/certificate.ts'
import { explain } from '../../spiffe/errors.ts'
import type { GeneralName } from '../../spiffe/general-name.ts'
import { isSpiffeId, pathOf } from '../../spiffe/id.ts'
import { importPublicKey, signatureProblem } from '../../spiffe/signature.ts'
import { leafChecks } from '../../spiffe/svid.ts'
import {
  type Checks,
  type Finding,
  finding,
  findingsOf,
  type Inspection,
  type Level,
  notJudged,
  problemOf,
} from './finding.ts'

/** The lines that the checks of spiffe/svid.ts stand for. */
const leafLines: Readonly<Record<string, string>> = {
  'one URI SAN': 'X5-1 X5-2',
  'the URI SAN is a SPIFFE ID': 'X5-19',
  'the ID has a path': 'X5-4 X5-19',
  'critical SAN without subject': 'X5-5',
  'no CA': 'X5-9 X5-10 X5-18',
  'critical key usage': 'X5-12',
  'digitalSignature only': 'X5-14 X5-18',
  'server and client purpose': 'X5-15',
}

const uris = ({ names }: Certificate) =>
  names.flatMap((name) => (name.kind === 'uri' ? [name.value] : []))
const isCritical = (it: Certificate, oid: string) => it.extensions.get(oid)?.critical === true

const leafAdvice: Checks<Certificate> = {
  'X5-15 an extended key usage is present': ({ extendedKeyUsage }) =>
    extendedKeyUsage === undefined ? 'it has none' : undefined,
}

const signingChecks: Checks<Certificate> = {
  'X5-1 one URI SAN at most': (it) =>
    uris(it).length > 1 ? `it has ${uris(it).length}` : undefined,
  'X5-6 its ID, when it has one, has no path': (it) =>
    uris(it)
      .filter(isSpiffeId)
      .every((id) => pathOf(id) === '')
      ? undefined
      : 'its ID has a path',
  'X5-10 cA is true, in a critical extension': (it) =>
    isCritical(it, extensionOids.basicConstraints) ? undefined : 'the extension is not critical',
  'X5-12 key usage is present and critical': (it) =>
    isCritical(it, extensionOids.keyUsage) ? undefined : 'no critical key usage',
  'X5-13 keyCertSign is set': (it) =>
    hasUsage(it, keyUsages.keyCertSign) ? undefined : 'it is not set',
  'X5-17 it has a subject': ({ hasSubject }) => (hasSubject ? undefined : 'its subject is empty'),
}

const signingAdvice: Checks<Certificate> = {
  'X5-6 it is an SVID itself': (it) =>
    uris(it).some(isSpiffeId) ? undefined : 'it has no SPIFFE ID',
  'X5-13 digitalSignature is clear': (it) =>
    hasUsage(it, keyUsages.digitalSignature) ? 'it is set' : undefined,
  'X5-16 no extended key usage': ({ extendedKeyUsage }) =>
    extendedKeyUsage === undefined ? undefined : 'it has one, which binds all below it',
}

const understood = new Set<string>(Object.values(extensionOids))

const commonChecks: Checks<Certificate> = {
  'X5-17 every critical extension is understood': ({ extensions }) => {
    const [unknown] = [...extensions].find(([id, it]) => it.critical && !understood.has(id)) ?? []
    return unknown === undefined ? undefined : `nobody here understands ${unknown}`
  },
  'X5-17 its key is strong enough': ({ publicKey }) => problemOf(() => importPublicKey(publicKey)),
}

const iso = (at: number) => new Date(at).toISOString()

function lifetimeProblem({ notBefore, notAfter }: Certificate, now: number): string | undefined {
  if (now < notBefore) return `not valid before ${iso(notBefore)}`
  return now > notAfter ? `expired at ${iso(notAfter)}` : undefined
}

/** Finds certificates by subject; the first few of each, as many as a path may try. */
export type Issuers = (of: Certificate) => readonly Certificate[]

export function issuersAmong(certificates: readonly Certificate[]): Issuers {
  const bySubject = Map.groupBy(certificates, ({ subject }) => Buffer.from(subject).toString('hex'))
  return ({ issuer }) => bySubject.get(Buffer.from(issuer).toString('hex'))?.slice(0, 8) ?? []
}

function signedProblem(it: Certificate, issuer: Certificate): string | undefined {
  const weak = problemOf(() => importPublicKey(issuer.publicKey))
  return weak ?? signatureProblem(it, importPublicKey(issuer.publicKey))
}

function signatureFinding(it: Certificate, issuers: Issuers): Finding {
  const rule = 'X5-17 its issuer signed it'
  const found = issuers(it)
  if (found.length === 0) return notJudged(rule, 'its issuer is not in the same input')
  const problems = found.map((issuer) => signedProblem(it, issuer))
  return finding(rule, problems.includes(undefined) ? undefined : problems[0])
}

export interface CertificateContext {
  readonly now: number
  readonly issuers: Issuers
  /** in a bundle everything signs, and what has expired is only useless */
  readonly lifetime?: Level
}

export function findingsOfLeaf(it: Certificate, context: CertificateContext): Finding[] {
  const own = findingsOf(leafChecks, it).map((found) => ({
    ...found,
    rule: `${leafLines[found.rule] ?? 'X5-18'} ${found.rule}`,
  }))
  return [...own, ...findingsOf(leafAdvice, it, 'should'), ...common(it, context)]
}

export function findingsOfSigner(it: Certificate, context: CertificateContext): Finding[] {
  const own = findingsOf(signingChecks, it)
  return [...own, ...findingsOf(signingAdvice, it, 'should'), ...common(it, context)]
}

function common(it: Certificate, { now, issuers, lifetime = 'must' }: CertificateContext) {
  return [
    finding('X5-17 it is in its lifetime', lifetimeProblem(it, now), lifetime),
    ...findingsOf(commonChecks, it),
    signatureFinding(it, issuers),
  ]
}

function nameText(name: GeneralName): string {
  if (name.kind === 'directory') return 'a directory name'
  if (name.kind === 'other') return `a name of tag ${name.tag}`
  if (name.kind !== 'ip') return `${name.kind}:${name.value}`
  const bytes = Buffer.from(name.value)
  const groups = bytes.toString('hex').match(/..../g) ?? []
  return `ip:${bytes.length === 4 ? bytes.join('.') : groups.join(':')}`
}

export function keyText(spki: Uint8Array): string {
  if (problemOf(() => importPublicKey(spki)) !== undefined) return 'a key that is not accepted'
  const { asymmetricKeyType, asymmetricKeyDetails } = importPublicKey(spki)
  const { namedCurve, modulusLength } = asymmetricKeyDetails ?? {}
  return [asymmetricKeyType, namedCurve, modulusLength].filter(Boolean).join(' ')
}

/** Distinguished names are only ever compared by us; for people OpenSSL writes them out. */
function distinguishedNames(der: Uint8Array): { subject?: string; issuer?: string } {
  try {
    return new X509Certificate(der)
  } catch (error) {
    return { subject: explain(error) }
  }
}

export function factsOf(it: Certificate): Readonly<Record<string, unknown>> {
  const { subject = '', issuer = '' } = distinguishedNames(it.der)
  return {
    names: it.names.map(nameText),
    subject: subject.replaceAll('\n', ', '),
    issuer: issuer.replaceAll('\n', ', '),
    serial: it.serial,
    notBefore: iso(it.notBefore),
    notAfter: iso(it.notAfter),
    key: keyText(it.publicKey),
    fingerprint: fingerprintOf(it.der),
  }
}

const parsing = 'X5-17 a version 3 certificate in DER'

function inspectOne(it: Certificate, where: string, context: CertificateContext): Inspection {
  const [id = '', ...others] = uris(it)
  const own = it.isCa ? findingsOfSigner(it, context) : findingsOfLeaf(it, context)
  const role = it.isCa ? 'a signing certificate' : 'a leaf'
  const what =
    isSpiffeId(id) && others.length === 0 ? `${role} of ${id}` : `${role} without one SPIFFE ID`
  const findings = [finding(parsing, undefined), ...own]
  return { kind: 'cert', where, what, facts: factsOf(it), findings }
}

/** The certificate that `der` is, or what is wrong with it. */
function read(der: Uint8Array): Certificate | string {
  return problemOf(() => parseCertificate(der)) ?? parseCertificate(der)
}

/** The certificates of one input, in which each one's issuer is looked for. */
export function inspectCertificates(
  ders: readonly Uint8Array[],
  input: string,
  now: number,
): Inspection[] {
  const all = ders.map(read)
  const issuers = issuersAmong(all.filter((it) => typeof it !== 'string'))
  return all.map((it, i) => {
    const where = `${input}:${i + 1}`
    if (typeof it !== 'string') return inspectOne(it, where, { now, issuers })
    return {
      kind: 'cert',
      where,
      what: 'no certificate',
      facts: {},
      findings: [finding(parsing, it)],
    }
  })
}
