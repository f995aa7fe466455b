// The connection to the authority: mutual TLS, its SPIFFE ID checked, never skipped.
import { readFileSync } from 'node:fs'
import type { PeerCertificate } from 'node:tls'
import type { Transport } from '@connectrpc/connect'
import { createGrpcTransport } from '@connectrpc/connect-node'
import { createHttp2Sessions } from '../client/http2-sessions.ts'
import type { Address } from '../runtime/config.ts'
import { addressText } from '../runtime/config.ts'
import { fetchPinnedRoot } from '../runtime/tls-server.ts'
import { traceInterceptors } from '../runtime/tracing/interceptor.ts'
import type { Tracer } from '../runtime/tracing/span.ts'
import {
  bundleOf,
  bundleOfPem,
  bundleSourceOf,
  bundleToPem,
  type X509Bundle,
} from '../spiffe/bundle.ts'
import { spiffeIdOf } from '../spiffe/id.ts'
import { matchId } from '../spiffe/match.ts'
import { keyPairToPem } from '../spiffe/pem.ts'
import { verifySvid } from '../spiffe/svid.ts'
import type { AgentConfig } from './config.ts'
import type { AgentSvid } from './own-svid.ts'

export interface AuthorityLink extends Disposable {
  readonly transport: Transport
}

export interface LinkOptions {
  readonly address: Address
  readonly bundle: X509Bundle
  /** none before the first attestation */
  readonly svid?: AgentSvid
  readonly now: () => number
  readonly tracer: Tracer
}

/**
 * Opens (lazily) one HTTP/2 connection. OpenSSL verifies the chain against the bundle; on top of it the
 * leaf has to be a whole SVID of `spiffe://TD/spire/server`.
 */
export function openLink({ address, bundle, svid, now, tracer }: LinkOptions): AuthorityLink {
  const match = matchId(spiffeIdOf(bundle.trustDomain, '/spire/server'))
  const bundles = bundleSourceOf(bundle)
  const checkServerIdentity = (_: string, peer: PeerCertificate): Error | undefined => {
    try {
      verifySvid([peer.raw], bundles, { now: now(), match })
      return undefined
    } catch (error) {
      return error instanceof Error ? error : new Error(String(error))
    }
  }
  const own = svid === undefined ? {} : keyPairToPem(svid)
  const baseUrl = `https://${addressText(address)}`
  const sessionManager = createHttp2Sessions(baseUrl, {
    ca: bundleToPem(bundle),
    minVersion: 'TLSv1.2',
    servername: '',
    checkServerIdentity,
    ...own,
  })
  return {
    transport: createGrpcTransport({
      ...{ baseUrl, sessionManager },
      interceptors: traceInterceptors(tracer),
    }),
    [Symbol.dispose]: () => sessionManager[Symbol.dispose](),
  }
}

/** The bundle to believe before the authority has sent one: from a file, or found by its fingerprint. */
export async function bootstrapBundle(
  { trustDomain, authority }: AgentConfig,
  { address, signal }: { readonly address: Address; readonly signal: AbortSignal },
): Promise<X509Bundle> {
  if (authority.bundle !== undefined) {
    return bundleOfPem(trustDomain, readFileSync(authority.bundle, 'utf8'), authority.bundle)
  }
  const root = await fetchPinnedRoot(address, authority.pin ?? '', { signal })
  return bundleOf(trustDomain, [root])
}
