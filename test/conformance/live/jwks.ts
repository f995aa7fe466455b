// The JWK Sets that an agent serves, and tokens verified by them: jose is the second opinion.
import { strict as assert } from 'node:assert'
import { decodeProtectedHeader, importJWK, type JWTPayload, jwtVerify } from 'jose'
import { z } from 'zod'
import type { TrustDomain } from '../../../spiffe/id.ts'
import { duplicateMember } from '../../../spiffe/json.ts'

// RFC 7517 §4, RFC 7518 §6.2.1 and §6.3.1; x5c is for certificates
const Jwk = z.strictObject({
  kty: z.string(),
  use: z.string().optional(),
  kid: z.string().optional(),
  alg: z.string().optional(),
  crv: z.string().optional(),
  x: z.string().optional(),
  y: z.string().optional(),
  n: z.string().optional(),
  e: z.string().optional(),
})
const Jwks = z.looseObject({ keys: z.array(Jwk) })

export type ServedKey = z.infer<typeof Jwk>

/** Rejects what is no JWK Set of public keys with the members that they need. */
export function keysIn(text: string): readonly ServedKey[] {
  assert.equal(duplicateMember(text), undefined, 'a member stands twice')
  const { success, data, error } = Jwks.safeParse(JSON.parse(text))
  assert.ok(success, `no JWK Set of public keys: ${error && z.prettifyError(error)}`)
  return data.keys
}

export function keysOf(
  bundles: Readonly<Record<string, string | Uint8Array>>,
  trustDomain: TrustDomain | string,
): readonly ServedKey[] {
  const text = bundles[`spiffe://${trustDomain}`] ?? assert.fail(`no bundle of ${trustDomain}`)
  return keysIn(Buffer.from(text).toString())
}

/** What a token claims once the served key that it names has verified it. */
export async function verifiedBy(token: string, keys: readonly ServedKey[]): Promise<JWTPayload> {
  const { kid, alg } = decodeProtectedHeader(token)
  const key = keys.find((it) => it.kid === kid) ?? assert.fail(`kid ${kid} is not served`)
  const { kty, crv, x, y, n, e } = key
  const parts = Object.entries({ crv, x, y, n, e }).filter(([, value]) => value !== undefined)
  const imported = await importJWK({ kty, ...Object.fromEntries(parts) }, alg ?? '')
  return (await jwtVerify(token, imported)).payload
}
