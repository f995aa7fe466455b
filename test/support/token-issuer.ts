// An issuer of service account tokens, as Kubernetes is one: its keys, and tokens good and bad.
import { exportJWK, generateKeyPair, SignJWT } from 'jose'

/** An undefined one is left out. */
export type Claims = Readonly<Record<string, unknown>>

export interface TestIssuer {
  readonly issuer: string
  /** JSON of its JWK Set */
  readonly jwks: string
  /** A token for system:serviceaccount:shop:cart and istio-ca, unless `claims` and `header` say otherwise. */
  token(claims?: Claims, header?: Claims): Promise<string>
}

export async function createTestIssuer(
  issuer = 'https://kubernetes.example',
  { alg = 'RS256', kid = 'key-1', now = Date.now() } = {},
): Promise<TestIssuer> {
  const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true })
  const jwks = JSON.stringify({ keys: [{ ...(await exportJWK(publicKey)), kid, alg, use: 'sig' }] })
  const seconds = Math.floor(now / 1000)
  return {
    issuer,
    jwks,
    token: (claims = {}, header = {}) =>
      new SignJWT({
        iss: issuer,
        aud: ['istio-ca'],
        sub: 'system:serviceaccount:shop:cart',
        iat: seconds,
        nbf: seconds,
        exp: seconds + 600,
        ...claims,
      })
        .setProtectedHeader({ alg, kid, ...header })
        .sign(privateKey),
  }
}
