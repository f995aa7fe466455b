// A trust domain whose keys the suite has: what an agent believes of it can be tried token by token.
import type { Transport } from '@connectrpc/connect'
import { createClient } from '@connectrpc/connect'
import { Bundle } from '../../../proto/gen/spire/api/server/bundle/v1/bundle_pb.js'
import { makeTestAuthority } from '../../support/mesh.ts'
import { type Said, signToken, type TokenSigner, tokenSigner } from '../../support/svid-tokens.ts'

const second = 1000

export interface Foreign {
  readonly trustDomain: string
  /** of a trust domain whose bundle has no key for tokens */
  readonly withoutTokens: string
  readonly signers: { readonly es256: TokenSigner; readonly rs256: TokenSigner }
  /** its key is in the bundle for WIT-SVIDs only */
  readonly witSigner: TokenSigner
  /** A token that keeps every rule, but for the changes. */
  token(claims?: Said, header?: Said, signer?: TokenSigner): Promise<string>
  readonly id: string
  readonly audience: string
}

const trustDomain = 'conformance.test'
const withoutTokens = 'x509-only.test'
const id = `spiffe://${trustDomain}/workload`
const audience = 'conformance'

/** Makes the keys and gives the bundles to the authority whose local socket `transport` is. */
export async function federate(transport: Transport): Promise<Foreign> {
  const signers = { es256: tokenSigner('ES256', 'es256'), rs256: tokenSigner('RS256', 'rs256') }
  const witSigner = tokenSigner('ES256', 'wit')
  const x509Of = (name: string) =>
    makeTestAuthority(name).bundle.authorities.map(({ der }) => ({ asn1: der }))
  const { results } = await createClient(Bundle, transport).batchSetFederatedBundle({
    bundle: [
      {
        trustDomain,
        x509Authorities: x509Of(trustDomain),
        jwtAuthorities: [signers.es256.key, signers.rs256.key],
        witAuthorities: [witSigner.key],
      },
      { trustDomain: withoutTokens, x509Authorities: x509Of(withoutTokens) },
    ],
  })
  const refused = results.find(({ status }) => status?.code !== 0)
  if (refused !== undefined) throw new Error(`bundle: ${refused.status?.message}`)
  return {
    ...{ trustDomain, withoutTokens, signers, witSigner, id, audience },
    token(claims = {}, header = {}, signer = signers.es256) {
      const now = Math.floor(Date.now() / second)
      const base = { sub: id, aud: [audience], iat: now, exp: now + 300 }
      return signToken(signer, { ...base, ...claims }, { typ: 'JWT', ...header })
    },
  }
}
