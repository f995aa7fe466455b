// The compact JWS that carries a JWT-SVID or a WIT-SVID: read strictly, and signed with one of nine
// algorithms by a key of a bundle (JWT-SVID §2, WIT-SVID §2).
import type { KeyObject } from 'node:crypto'
import { compactVerify } from 'jose'
import type { TokenKey } from './bundle-document.ts'
import { explain, IdentityError } from './errors.ts'
import type { TrustDomain } from './id.ts'
import { duplicateMember, isMembers, type Members } from './json.ts'
import { importPublicKey } from './signature.ts'

export interface Jws {
  /** the compact form; whoever has it may use it, so it goes into no message */
  readonly token: string
  readonly header: Members
  readonly payload: Members
}

/** A rule of a kind of token: throws ERR_UNTRUSTED with the reason when it does not hold. */
export type TokenRule = (jws: Jws, at: TokenTime) => unknown

/** Both in milliseconds. */
export interface TokenTime {
  readonly now: number
  /** by how much our clock and that of the issuer may differ */
  readonly leeway: number
}

/** Refuses a token: throws ERR_UNTRUSTED. */
export function refuseToken(reason: string, cause?: unknown): never {
  throw new IdentityError('ERR_UNTRUSTED', reason, { cause })
}

const longestToken = 16 * 1024
const deepest = 32
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

interface KeyKind {
  readonly type: 'ec' | 'rsa'
  readonly curve?: string
}

const rsa: KeyKind = { type: 'rsa' }

/** What key makes a signature of which algorithm (RFC 7518 §3.1); no other algorithm is looked at. */
const algorithms: ReadonlyMap<unknown, KeyKind> = new Map<string, KeyKind>([
  ['RS256', rsa],
  ['RS384', rsa],
  ['RS512', rsa],
  ['ES256', { type: 'ec', curve: 'prime256v1' }],
  ['ES384', { type: 'ec', curve: 'secp384r1' }],
  ['ES512', { type: 'ec', curve: 'secp521r1' }],
  ['PS256', rsa],
  ['PS384', rsa],
  ['PS512', rsa],
])

/** A value of the token, short enough for a message. */
export function quoted(value: unknown): string {
  const shown = JSON.stringify(value) ?? 'nothing'
  return shown.length > 80 ? `${shown.slice(0, 80)}…` : shown
}

// What follows the claims by recursion (JSON.stringify, protobuf) ends before its stack does.
function isDeeper(value: unknown, levels: number): boolean {
  if (typeof value !== 'object' || value === null) return false
  return levels === 0 || Object.values(value).some((inner) => isDeeper(inner, levels - 1))
}

/** One form only: no padding, no other alphabet, no bits that are cut off. */
function bytesOf(part: string, name: string): Buffer {
  const bytes = Buffer.from(part, 'base64url')
  return bytes.toString('base64url') === part ? bytes : refuseToken(`the ${name} is no base64url`)
}

function membersOf(part: string, name: string): Members {
  const bytes = bytesOf(part, name)
  let text: string
  let value: unknown
  try {
    text = utf8.decode(bytes)
    value = JSON.parse(text)
  } catch (cause) {
    // the parser's own message quotes what it read
    const isText = cause instanceof SyntaxError
    return refuseToken(`the ${name} is no ${isText ? 'JSON' : 'UTF-8'}`)
  }
  if (!isMembers(value)) return refuseToken(`the ${name} is no JSON object`)
  const twice = duplicateMember(text)
  if (twice !== undefined) return refuseToken(`the ${name} has the member ${quoted(twice)} twice`)
  if (isDeeper(value, deepest)) return refuseToken(`the ${name} is nested too deeply`)
  return value
}

function partsOf(token: string): readonly [header: string, payload: string, signature: string] {
  if (token.length > longestToken)
    return refuseToken(`a token of ${token.length} bytes (at most ${longestToken})`)
  if (token.trimStart().startsWith('{')) return refuseToken('a JSON serialization, not the compact')
  const [header, payload, signature, ...rest] = token.split('.')
  if (rest.length === 2) return refuseToken('an encrypted token (JWE)')
  if (header === undefined || payload === undefined || signature === undefined || rest.length > 0)
    return refuseToken('no compact JWS: three parts with a dot between them')
  return [header, payload, signature]
}

/** The header of a compact JWS. Throws ERR_UNTRUSTED. */
export function jwsHeaderOf(token: string): Members {
  return membersOf(partsOf(token)[0], 'header')
}

/** The payload of a compact JWS, which nobody has verified yet. Throws ERR_UNTRUSTED. */
export function jwsPayloadOf(token: string): Members {
  const [, payload, signature] = partsOf(token)
  bytesOf(signature, 'signature')
  return membersOf(payload, 'payload')
}

/** Throws ERR_UNTRUSTED when `alg` is none of the nine. */
export function kindOfAlgorithm(alg: unknown): KeyKind {
  return algorithms.get(alg) ?? refuseToken(`the algorithm ${quoted(alg)} is not accepted`)
}

/** Throws ERR_UNTRUSTED when the key cannot have signed with `alg`. */
export function checkFit(alg: unknown, key: KeyObject): void {
  const { type, curve } = kindOfAlgorithm(alg)
  const { asymmetricKeyType, asymmetricKeyDetails } = key
  if (asymmetricKeyType !== type || asymmetricKeyDetails?.namedCurve !== curve)
    refuseToken(`the algorithm ${quoted(alg)} is not one of its key`)
}

/** Reads a token; its algorithm is judged before anything else. Throws ERR_UNTRUSTED. */
export function readJws(token: string): Jws {
  const header = jwsHeaderOf(token)
  kindOfAlgorithm(header.alg)
  return { token, header, payload: jwsPayloadOf(token) }
}

// by identity: what is imported from a key never changes
const imported = new WeakMap<TokenKey, KeyObject>()

function keyOf(key: TokenKey): KeyObject {
  const known = imported.get(key)
  if (known !== undefined) return known
  const made = importPublicKey(key.publicKey)
  imported.set(key, made)
  return made
}

/** Says why `key` did not sign; undefined when it did. */
async function signatureProblem({ token, header }: Jws, key: TokenKey) {
  try {
    const publicKey = keyOf(key)
    checkFit(header.alg, publicKey)
    await compactVerify(token, publicKey, { algorithms: [String(header.alg)] })
    return undefined
  } catch (cause) {
    return explain(cause)
  }
}

interface Trusted {
  /** of the one use, and of no other; undefined when the trust domain is not trusted */
  readonly keys: (trustDomain: TrustDomain) => readonly TokenKey[] | undefined
  readonly use: string
}

/**
 * Throws ERR_UNTRUSTED unless a key of this trust domain made the signature: the one that `kid` names, or any when
 * the header has none.
 */
export async function checkSignature(
  jws: Jws,
  trustDomain: TrustDomain,
  { keys, use }: Trusted,
): Promise<void> {
  const { kid } = jws.header
  const all = keys(trustDomain) ?? refuseToken(`trust domain ${trustDomain} is not trusted here`)
  if (all.length === 0) refuseToken(`the bundle of ${trustDomain} has no keys of ${use}`)
  const candidates = kid === undefined ? all : all.filter(({ keyId }) => keyId === kid)
  const problems: string[] = []
  for (const key of candidates) {
    const problem = await signatureProblem(jws, key)
    if (problem === undefined) return
    problems.push(problem)
  }
  if (kid !== undefined) refuseToken(problems[0] ?? `no key ${quoted(kid)} in the bundle`)
  refuseToken(`none of ${problems.length} keys of the bundle made the signature`)
}
