// A Workload API with all that a workload may ask: X.509 and JWT profiles, one identity or several.
import { generateKeyPairSync } from 'node:crypto'
import { SignJWT } from 'jose'
import type { OwnSvid } from '../../client/x509-source.ts'
import { bundleToDer } from '../../spiffe/bundle.ts'
import { parseBundleDocument } from '../../spiffe/bundle-document.ts'
import { verifyJwtSvid } from '../../spiffe/jwt-svid.ts'
import type { TestAuthority } from '../support/mesh.ts'
import { startWorkloadApi, type TestApi } from './workload-api.ts'

function tokenIssuer() {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
  const jwk = { ...publicKey.export({ format: 'jwk' }), kid: 'key', use: 'jwt-svid' }
  const jwks = JSON.stringify({ keys: [jwk] })
  const issue = (sub: string, aud: string[]) =>
    new SignJWT({ sub, aud })
      .setProtectedHeader({ alg: 'ES256', kid: 'key', typ: 'JWT' })
      .setIssuedAt()
      .setExpirationTime('5m')
      .sign(privateKey)
  return { jwks, issue, keys: parseBundleDocument(jwks, 'test').jwt }
}

/** The SVIDs are said once and stand; the endpoint is `unix://…`. */
export async function startWorkload(
  { bundle }: TestAuthority,
  svids: readonly [OwnSvid, ...OwnSvid[]],
): Promise<TestApi & { readonly uri: string }> {
  const tokens = tokenIssuer()
  const trustDomain = `spiffe://${bundle.trustDomain}`
  const until = (signal: AbortSignal) =>
    new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()))
  const api = await startWorkloadApi({
    async *fetchX509SVID(_, { signal }) {
      yield {
        svids: svids.map(({ id, chain, key, hint }) => ({
          spiffeId: id,
          x509Svid: Buffer.concat(chain),
          x509SvidKey: key.export({ format: 'der', type: 'pkcs8' }),
          bundle: bundleToDer(bundle),
          hint,
        })),
      }
      await until(signal)
    },
    async fetchJWTSVID({ audience, spiffeId }) {
      const sub = spiffeId || svids[0].id
      return { svids: [{ spiffeId: sub, svid: await tokens.issue(sub, audience) }] }
    },
    async *fetchJWTBundles(_, { signal }) {
      yield { bundles: { [trustDomain]: Buffer.from(tokens.jwks) } }
      await until(signal)
    },
    async validateJWTSVID({ audience, svid }) {
      const options = { keys: () => tokens.keys, audience, now: Date.now() }
      const { id } = await verifyJwtSvid(svid, options)
      return { spiffeId: id, claims: { sub: id } }
    },
  })
  const uri = api.endpoint.kind === 'unix' ? `unix://${api.endpoint.path}` : ''
  return { ...api, uri }
}
