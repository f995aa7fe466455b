// A trust bundle as a document: a JWK Set with SPIFFE's members (Trust Domain and Bundle §4).
import { createPublicKey, type JsonWebKey, type KeyObject } from 'node:crypto'
import { parseCertificate } from './certificate.ts'
import { explain, IdentityError } from './errors.ts'
import { duplicateMember, isMembers, type Members, parseExactJson } from './json.ts'

/** A public key that signs tokens. */
export interface TokenKey {
  readonly keyId: string
  /** SubjectPublicKeyInfo, DER */
  readonly publicKey: Uint8Array
}

export interface BundleDocument {
  /** DER, one certificate each */
  readonly x509: readonly Uint8Array[]
  readonly jwt: readonly TokenKey[]
  readonly wit: readonly TokenKey[]
  /** absent when the document has none; 64 bits do not fit a number */
  readonly sequence: bigint | undefined
  /** seconds; absent when the document has none */
  readonly refreshHint: number | undefined
}

const kinds = ['EC', 'RSA', 'OKP']
const mostKeys = 256

/** Reads one document; every refusal names `source` and the place in it. */
function createReader(source: string) {
  function refuse(place: string, problem: string, cause?: unknown): never {
    const message = `${source}: ${place === '' ? '' : `${place} `}${problem}`
    throw new IdentityError('ERR_BAD_REQUEST', message, { cause })
  }

  function text(members: Members, name: string, place: string): string {
    const value = members[name]
    return typeof value === 'string' && value !== ''
      ? value
      : refuse(`${place}.${name}`, 'is missing or no text')
  }

  function whole(members: Members, name: string): bigint | undefined {
    const value = members[name]
    if (value === undefined) return undefined
    return typeof value === 'bigint' && value >= 0n && value < 2n ** 64n
      ? value
      : refuse(name, 'is no whole number of 64 bits')
  }

  // X509-SVID §6.2: without a certificate the key is skipped, of several the first one counts
  function certificates(jwk: Members, place: string): Uint8Array[] {
    const { x5c = [] } = jwk
    if (!Array.isArray(x5c)) return refuse(`${place}.x5c`, 'is no list')
    return x5c.slice(0, 1).map((encoded) => certificate(encoded, place))
  }

  function certificate(encoded: unknown, place: string): Uint8Array {
    if (typeof encoded !== 'string') return refuse(`${place}.x5c`, 'is no text')
    const der = Buffer.from(encoded, 'base64')
    if (der.toString('base64') !== encoded) refuse(`${place}.x5c`, 'is no base64')
    try {
      if (parseCertificate(der).isCa) return der
    } catch (cause) {
      return refuse(`${place}.x5c`, explain(cause), cause)
    }
    return refuse(`${place}.x5c`, 'is no CA certificate')
  }

  function tokenKey(jwk: Members, place: string): TokenKey {
    const keyId = text(jwk, 'kid', place)
    if ('d' in jwk) refuse(place, 'holds a private key; publish the public one only')
    try {
      const key: JsonWebKey = Object.fromEntries(
        Object.entries(jwk).flatMap(([name, value]) =>
          typeof value === 'string' ? [[name, value]] : [],
        ),
      )
      const publicKey = createPublicKey({ key, format: 'jwk' })
      return { keyId, publicKey: publicKey.export({ format: 'der', type: 'spki' }) }
    } catch (cause) {
      return refuse(place, `is no public key: ${explain(cause)}`, cause)
    }
  }
  return { refuse, whole, certificates, tokenKey }
}

/**
 * Reads a SPIFFE bundle. Keys of an unknown kind or use are left out, as the standard wants; everything
 * else that is wrong is an error. Throws ERR_BAD_REQUEST naming `source` and the place.
 */
export function parseBundleDocument(json: string, source: string): BundleDocument {
  const { refuse, whole, certificates, tokenKey } = createReader(source)
  let document: unknown
  try {
    document = parseExactJson(json)
  } catch (cause) {
    return refuse('', `is no JSON: ${explain(cause)}`, cause)
  }
  const twice = duplicateMember(json)
  if (twice !== undefined) return refuse('', `has the member ${JSON.stringify(twice)} twice`)
  if (!isMembers(document)) return refuse('', 'is no JSON object')
  const { keys } = document
  if (!Array.isArray(keys)) return refuse('keys', 'is missing or no list')
  if (keys.length > mostKeys) refuse('keys', `has more than ${mostKeys} keys`)
  const x509: Uint8Array[] = []
  const jwt: TokenKey[] = []
  const wit: TokenKey[] = []
  for (const [i, jwk] of keys.entries()) {
    const place = `keys[${i}]`
    if (!isMembers(jwk)) return refuse(place, 'is no JSON object')
    if (!kinds.includes(String(jwk.kty))) continue
    if (jwk.use === 'x509-svid') x509.push(...certificates(jwk, place))
    if (jwk.use === 'jwt-svid') jwt.push(tokenKey(jwk, place))
    if (jwk.use === 'wit-svid') wit.push(tokenKey(jwk, place))
  }
  const hint = whole(document, 'spiffe_refresh_hint')
  const sequence = whole(document, 'spiffe_sequence')
  return { x509, jwt, wit, sequence, refreshHint: hint === undefined ? undefined : Number(hint) }
}

function jwkOf(key: KeyObject, use: string, more: object): object {
  return { use, ...key.export({ format: 'jwk' }), ...more }
}

const fromSpki = (der: Uint8Array) =>
  createPublicKey({ key: Buffer.from(der), format: 'der', type: 'spki' })

/** The document of a bundle: a minimal JWK for each key, `keys` also when there is none. */
export function formatBundleDocument(bundle: BundleDocument): string {
  const { x509, jwt, wit, sequence, refreshHint } = bundle
  const certificates = x509.map((der) =>
    jwkOf(fromSpki(parseCertificate(der).publicKey), 'x509-svid', {
      x5c: [Buffer.from(der).toString('base64')],
    }),
  )
  const tokens = (use: string, keys: readonly TokenKey[]) =>
    keys.map(({ keyId, publicKey }) => jwkOf(fromSpki(publicKey), use, { kid: keyId }))
  const keys = [...certificates, ...tokens('jwt-svid', jwt), ...tokens('wit-svid', wit)]
  const members = {
    keys,
    ...(refreshHint === undefined ? {} : { spiffe_refresh_hint: refreshHint }),
  }
  const text = JSON.stringify(members, undefined, 2)
  // by hand: JSON.stringify knows no number of 64 bits
  return sequence === undefined
    ? text
    : text.replace(/\n\}$/, `,\n  "spiffe_sequence": ${sequence}\n}`)
}
