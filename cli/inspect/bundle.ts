// A trust bundle by the rules of Trust Domain and Bundle §4: the document, then each of its keys.
import { parseBundleDocument, type TokenKey } from '../../spiffe/bundle-document.ts'
import { type Certificate, parseCertificate } from '../../spiffe/certificate.ts'
import { duplicateMember, isMembers, type Members, parseExactJson } from '../../spiffe/json.ts'
import { importPublicKey } from '../../spiffe/signature.ts'
import { findingsOfSigner, issuersAmong } from './certificate.ts'
import {
  type Checks,
  type Finding,
  finding,
  findingsOf,
  type Inspection,
  problemOf,
  within,
} from './finding.ts'

const kinds = ['EC', 'RSA', 'OKP']
const uses = ['x509-svid', 'jwt-svid', 'wit-svid']
const isText = (value: unknown): value is string => typeof value === 'string' && value !== ''

/** One key as the reader of bundles takes it, changed as `as` says. */
function readKey(jwk: Members, as: Members = {}) {
  return parseBundleDocument(JSON.stringify({ keys: [{ ...jwk, ...as }] }), source)
}

const source = 'the bundle'

/** As problemOf, without the place: the finding has it already. */
function keyProblemOf(call: () => unknown): string | undefined {
  return problemOf(call)?.replace(`${source}: keys[0]`, 'it')
}

/** The public key that the members of a JWK spell out. */
function ownKeyOf(jwk: Members): TokenKey | undefined {
  return readKey(jwk, { use: 'jwt-svid', kid: 'any' }).jwt[0]
}

const keyChecks: Checks<Members> = {
  'TB-8 kty and use are present': ({ kty, use }) =>
    isText(kty) && isText(use) ? undefined : 'one of them is missing or no text',
  'TB-8 it is a public key': (jwk) =>
    ['d', 'k', 'priv'].some((name) => name in jwk) ? 'it holds a private key' : undefined,
}

const keyAdvice: Checks<Members> = {
  'TB-5 a kty that readers know': ({ kty }) =>
    kinds.some((it) => it === kty) ? undefined : 'they leave it out',
  'TB-6 a use that readers know': ({ use }) =>
    uses.some((it) => it === use) ? undefined : 'they leave it out',
}

const authorityChecks: Checks<Members> = {
  'X5-21 kid is absent': ({ kid }) => (kid === undefined ? undefined : 'it is present'),
  'X5-21 x5c is exactly one certificate': ({ x5c }) =>
    Array.isArray(x5c) && x5c.length === 1 ? undefined : 'it is not',
  'X5-21 a CA certificate that can be read': (jwk) => keyProblemOf(() => readKey(jwk)),
  'X5-21 its members are the key of the certificate': (jwk) =>
    keyProblemOf(() => readKey(jwk)) ?? keyProblemOf(() => ownKeyOf(jwk)) ?? otherKeyProblem(jwk),
}

function otherKeyProblem(jwk: Members): string | undefined {
  const [der] = readKey(jwk).x509
  const own = ownKeyOf(jwk)?.publicKey
  if (der === undefined || own === undefined) return 'there is no certificate'
  return Buffer.from(own).equals(parseCertificate(der).publicKey) ? undefined : 'it is another key'
}

const tokenChecks: Checks<Members> = {
  'JW-14 WT-19 kid is set': ({ kid }) => (isText(kid) ? undefined : 'it is missing or no text'),
  'JW-14 WT-19 a public key that can be read': (jwk) => keyProblemOf(() => ownKeyOf(jwk)),
  'JW-18 a key for one of the nine algorithms': (jwk) =>
    keyProblemOf(() => ownKeyOf(jwk)) ?? weakness(jwk),
}

function weakness(jwk: Members): string | undefined {
  const spki = ownKeyOf(jwk)?.publicKey ?? new Uint8Array()
  const problem = problemOf(() => importPublicKey(spki))
  if (problem !== undefined) return problem
  return jwk.kty === 'OKP' ? 'none of them is for it' : undefined
}

function findingsOfKey(jwk: unknown): Finding[] {
  if (!isMembers(jwk)) return [finding('TB-1 a JSON object', 'it is none')]
  const common = [...findingsOf(keyChecks, jwk), ...findingsOf(keyAdvice, jwk, 'should')]
  const isKnown = common.every(({ verdict }) => verdict === 'holds')
  if (!isKnown) return common
  return [...common, ...findingsOf(jwk.use === 'x509-svid' ? authorityChecks : tokenChecks, jwk)]
}

function wholeProblem(value: unknown): string | undefined {
  const isWhole = typeof value === 'bigint' && value >= 0n && value < 2n ** 64n
  return value === undefined || isWhole ? undefined : 'it is no whole number of 64 bits'
}

const documentChecks: Checks<Members> = {
  'TB-4 keys is a list': ({ keys }) => (Array.isArray(keys) ? undefined : 'it is missing or none'),
  'TB-2 spiffe_sequence is a whole number': (it) => wholeProblem(it.spiffe_sequence),
  'TB-3 spiffe_refresh_hint is a whole number': (it) => wholeProblem(it.spiffe_refresh_hint),
  'WT-19 no kid stands twice': ({ keys }) => {
    const seen = new Set<string>()
    const twice = membersOf(keys)
      .flatMap(({ kid }) => (isText(kid) ? [kid] : []))
      .find((kid) => seen.size === seen.add(kid).size)
    return twice === undefined ? undefined : `${JSON.stringify(twice)} does`
  },
}

const documentAdvice: Checks<Members> = {
  'TB-2 spiffe_sequence is present': (it) =>
    it.spiffe_sequence === undefined ? 'it is missing' : undefined,
  'TB-3 spiffe_refresh_hint is present': (it) =>
    it.spiffe_refresh_hint === undefined ? 'it is missing' : undefined,
  'TB-7 it holds a key': ({ keys }) =>
    membersOf(keys).length === 0 ? 'an empty bundle trusts nobody' : undefined,
}

const listOf = (keys: unknown): unknown[] => (Array.isArray(keys) ? keys : [])
const membersOf = (keys: unknown) => listOf(keys).filter(isMembers)

const iso = (at: number) => new Date(at).toISOString()
const factsOfAuthority = (it: Certificate) => ({ serial: it.serial, notAfter: iso(it.notAfter) })

function inspectAuthorities(ders: readonly Uint8Array[], now: number): Finding[] {
  const authorities = ders.map(parseCertificate)
  const context = { now, issuers: issuersAmong(authorities), lifetime: 'should' } as const
  return authorities.flatMap((it, i) =>
    within(`certificate ${i + 1}:`, findingsOfSigner(it, context)),
  )
}

/** A bundle as PEM: certificates of signing authorities. */
export function inspectPemBundle(
  ders: readonly Uint8Array[],
  where: string,
  now: number,
): Inspection {
  const readable = ders.map((der, i) =>
    finding(
      `X5-17 certificate ${i + 1} can be read, and is a CA`,
      problemOf(() => parseCertificate(der)) ??
        (parseCertificate(der).isCa ? undefined : 'it is no CA certificate'),
    ),
  )
  const good = ders.filter((_, i) => readable[i]?.verdict === 'holds')
  return {
    kind: 'bundle',
    where,
    what: `a bundle in PEM, certificates: ${ders.length}`,
    facts: { authorities: good.map(parseCertificate).map(factsOfAuthority) },
    findings: [...readable, ...inspectAuthorities(good, now)],
  }
}

const readable = 'TB-1 a JSON object'

/** A SPIFFE bundle document. */
export function inspectBundleDocument(json: string, where: string, now: number): Inspection {
  const none = { kind: 'bundle', where, what: 'no bundle', facts: {} }
  let exact: unknown
  try {
    exact = parseExactJson(json)
  } catch {
    // the parser's own message quotes what it read
    return { ...none, findings: [finding(readable, 'it is no JSON')] }
  }
  if (!isMembers(exact)) return { ...none, findings: [finding(readable, 'it is none')] }
  const twice = duplicateMember(json)
  const loaded = problemOf(() => parseBundleDocument(json, source))
  const plain: unknown = JSON.parse(json)
  const keys = isMembers(plain) ? listOf(plain.keys).slice(0, mostKeys) : []
  const { x509, jwt, wit, sequence, refreshHint } =
    loaded === undefined ? parseBundleDocument(json, source) : emptyBundle
  return {
    ...none,
    what: loaded === undefined ? 'a SPIFFE bundle' : 'a bundle that is not accepted',
    facts: {
      authorities: x509.map(parseCertificate).map(factsOfAuthority),
      jwtKeys: jwt.map(({ keyId }) => keyId),
      witKeys: wit.map(({ keyId }) => keyId),
      sequence: sequence?.toString(),
      refreshHint,
    },
    findings: [
      finding(readable, undefined),
      finding('TB-10 no member twice', twice && `${JSON.stringify(twice)} stands twice`),
      ...findingsOf(documentChecks, exact),
      ...findingsOf(documentAdvice, exact, 'should'),
      ...keys.flatMap((jwk, i) => within(`keys[${i}]:`, findingsOfKey(jwk))),
      finding('it is accepted as a whole', loaded),
      ...inspectAuthorities(x509, now),
    ],
  }
}

// what has more is refused as a whole
const mostKeys = 256
const emptyBundle = { x509: [], jwt: [], wit: [], sequence: undefined, refreshHint: undefined }
