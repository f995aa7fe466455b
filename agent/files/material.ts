// What files are made of, at one moment, whoever it comes from: the agent's own cache, or the Workload API.
import { createHash } from 'node:crypto'
import type { X509Bundle } from '../../spiffe/bundle.ts'
import type { SpiffeId, TrustDomain } from '../../spiffe/id.ts'
import type { FileSet } from './config.ts'

export interface Material {
  readonly id: SpiffeId
  /** DER, leaf first */
  readonly chain: readonly Uint8Array[]
  /** PKCS#8 DER */
  readonly key: Uint8Array
  /** milliseconds since the epoch */
  readonly notAfter: number
  /** the own trust domain first, then the federated ones */
  readonly bundles: readonly [X509Bundle, ...X509Bundle[]]
  /** by `audienceKey` */
  readonly tokens: ReadonlyMap<string, string>
  /** JWK Sets */
  readonly jwks: ReadonlyMap<TrustDomain, string>
  /** what is wanted and cannot be had now, with the reason */
  readonly lacking: readonly string[]
  /** milliseconds since the epoch at which to look again without a change */
  readonly until: number
}

/** What a set needs. */
export interface Want {
  /** undefined: the default identity, or that of the hint */
  readonly id: SpiffeId | undefined
  readonly hint: string | undefined
  readonly audiences: readonly (readonly string[])[]
  readonly wantsJwks: boolean
}

export interface MaterialSource {
  /** Throws ERR_NO_IDENTITY or ERR_UNAVAILABLE with the reason while there is no SVID. */
  now(want: Want, options: { readonly signal: AbortSignal }): Promise<Material>
  onChange(listener: () => void): Disposable
}

/** JSON, so that no audience can run into the next one. */
export const audienceKey = (audience: readonly string[]) => JSON.stringify(audience)

export function wantOf({ id, hint, files }: FileSet): Want {
  const audiences = files.flatMap((file) => (file.holds === 'jwt' ? [file.audience] : []))
  return { id, hint, audiences, wantsJwks: files.some(({ holds }) => holds === 'jwt-bundle') }
}

/** One word for everything that can be written: the same for the same. */
export function versionOf({ chain, key, bundles, tokens, jwks }: Material): string {
  const digest = createHash('sha256')
  const parts = [
    ...chain,
    key,
    ...bundles.flatMap(({ trustDomain, authorities }) => [
      Buffer.from(trustDomain),
      ...authorities.map(({ der }) => der),
    ]),
    ...[...tokens, ...jwks].flat().map((text) => Buffer.from(text)),
  ]
  // lengths keep one part from running into the next one
  for (const part of parts) digest.update(`${part.length}:`).update(part)
  return digest.digest('base64')
}
