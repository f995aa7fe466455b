// What this side shows in a handshake, and the roots that OpenSSL may believe: always one version.
import { constants } from 'node:crypto'
import { createSecureContext, type SecureContext, type SecureContextOptions } from 'node:tls'
import type { Clock } from '../runtime/clock.ts'
import type { X509Bundle } from '../spiffe/bundle.ts'
import { type Certificate, extensionOids } from '../spiffe/certificate.ts'
import { keyPairToPem, toPem } from '../spiffe/pem.ts'
import type { OwnSvid, SvidPicker, X509Source } from './x509-source.ts'

/** What TLS needs of a source. */
export type TlsSource = Pick<
  X509Source,
  'current' | 'ready' | 'trouble' | 'subscribe' | 'svid' | 'bundles' | 'revoked'
>

export interface Showing {
  /** which of several identities this side shows; the default one when left out */
  readonly pick?: SvidPicker
  readonly clock: Clock
}

/** The SVID to show now; undefined when there is none, or it has expired. */
export function ownSvid(source: TlsSource, { pick, clock }: Showing): OwnSvid | undefined {
  const svid = source.svid(pick)
  return svid !== undefined && clock.now() <= svid.notAfter ? svid : undefined
}

function nameOf({ subject, extensions }: Certificate): string {
  const keyId = extensions.get(extensionOids.subjectKeyIdentifier)?.value ?? new Uint8Array()
  return Buffer.concat([subject, keyId]).toString('hex')
}

/**
 * The roots of all bundles in one pool: OpenSSL cannot choose by trust domain, so whoever uses it looks
 * again at the bundle of the peer's own. It takes the first issuer of the right name and key identifier:
 * a foreign root that bears both of one of ours could keep everybody of ours out.
 */
function pool([own, ...federated]: readonly X509Bundle[]): Certificate[] {
  const ours = own?.authorities ?? []
  const names = new Set(ours.map(nameOf))
  const theirs = federated.flatMap(({ authorities }) => authorities)
  return [...ours, ...theirs.filter((it) => !names.has(nameOf(it)))]
}

/** Also without identity: what is left out of a context would return to its default, such as public roots. */
const common: SecureContextOptions = {
  minVersion: 'TLSv1.2',
  // sessions are never resumed: a ticket outlives what it was given for; a peer does not change midway
  secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION,
  // a bundle may hold authorities that others have signed
  allowPartialTrustChain: true,
}

/** Whole, for `setSecureContext` replaces everything. Without an SVID it shows nothing and believes nobody. */
export function contextOptions(source: TlsSource, showing: Showing): SecureContextOptions {
  const svid = ownSvid(source, showing)
  if (svid === undefined) return { ...common, ca: [] }
  return {
    ...common,
    ...keyPairToPem(svid),
    ca: pool(source.bundles()).map(({ der }) => toPem(der, 'CERTIFICATE')),
  }
}

// by identity: another state of the source has other objects
const contexts = new WeakMap<OwnSvid, SecureContext>()

/** The context of outgoing connections; undefined when there is no SVID to show. */
export function clientContext(source: TlsSource, showing: Showing): SecureContext | undefined {
  const svid = ownSvid(source, showing)
  if (svid === undefined) return undefined
  const known = contexts.get(svid)
  if (known !== undefined) return known
  const made = createSecureContext(contextOptions(source, showing))
  contexts.set(svid, made)
  return made
}
