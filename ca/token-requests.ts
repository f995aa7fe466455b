// What a request for a token SVID may say: receivers of a JWT-SVID, the holder's key of a WIT-SVID.
import { createPublicKey, type KeyObject } from 'node:crypto'
import type { TokenPurpose } from './token-svids.ts'
import { badRequest } from './wire.ts'

const mostReceivers = 32
const longestReceiver = 1024
const largestKey = 2048

/** Throws ERR_BAD_REQUEST: at least one receiver, none empty (JWT-SVID §3.2). */
export function jwtPurpose(audience: readonly string[]): TokenPurpose {
  const field = 'audience'
  if (audience.length === 0)
    badRequest([{ field, problem: 'is empty: name at least one receiver' }])
  if (audience.length > mostReceivers)
    badRequest([{ field, problem: `more than ${mostReceivers} receivers` }])
  const bad = audience.findIndex((it) => it === '' || it.length > longestReceiver)
  if (bad >= 0)
    badRequest([
      { field: `${field}[${bad}]`, problem: `is not 1 to ${longestReceiver} characters` },
    ])
  return { kind: 'jwt', audience }
}

const isCurve = (curve: string) => (key: KeyObject) =>
  key.asymmetricKeyType === 'ec' && key.asymmetricKeyDetails?.namedCurve === curve
const isRsa = (key: KeyObject) =>
  key.asymmetricKeyType === 'rsa' && (key.asymmetricKeyDetails?.modulusLength ?? 0) >= 2048

/** Algorithm → the keys that it goes with (RFC 7518 §3; the nine of WIT-SVID §2.3). */
const algorithms: Readonly<Record<string, (key: KeyObject) => boolean>> = {
  ES256: isCurve('prime256v1'),
  ES384: isCurve('secp384r1'),
  ES512: isCurve('secp521r1'),
  RS256: isRsa,
  RS384: isRsa,
  RS512: isRsa,
  PS256: isRsa,
  PS384: isRsa,
  PS512: isRsa,
}

function publicKeyOf(der: Uint8Array, field: string): KeyObject {
  if (der.length > largestKey) badRequest([{ field, problem: `longer than ${largestKey} bytes` }])
  try {
    return createPublicKey({ key: Buffer.from(der), format: 'der', type: 'spki' })
  } catch {
    return badRequest([{ field, problem: 'is no SubjectPublicKeyInfo in DER' }])
  }
}

/** Throws ERR_BAD_REQUEST naming the field below `at`. */
export function witPurpose(
  {
    publicKey,
    signingAlgorithm,
  }: {
    readonly publicKey: Uint8Array
    readonly signingAlgorithm: string
  },
  at = '',
): TokenPurpose {
  const fits = Object.hasOwn(algorithms, signingAlgorithm)
    ? algorithms[signingAlgorithm]
    : undefined
  if (fits === undefined) {
    const problem = `is none of ${Object.keys(algorithms).join(', ')}`
    return badRequest([{ field: `${at}signing_algorithm`, problem }])
  }
  const holder = publicKeyOf(publicKey, `${at}public_key`)
  if (!fits(holder)) {
    const problem = `is no key for ${signingAlgorithm}`
    badRequest([{ field: `${at}public_key`, problem }])
  }
  return { kind: 'wit', holder, algorithm: signingAlgorithm }
}
