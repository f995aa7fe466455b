// TLS for our servers, and the one look at a server before it is trusted. `rejectUnauthorized: false`
// stands here because OpenSSL cannot choose roots by SPIFFE trust domain: each use is beside what
// replaces it.
import { constants, type KeyObject, type X509Certificate } from 'node:crypto'
import { connect, type SecureContextOptions, type TLSSocket, type TlsOptions } from 'node:tls'
import { fingerprintOf, parseCertificate } from '../spiffe/certificate.ts'
import { explain, IdentityError } from '../spiffe/errors.ts'
import { keyPairToPem } from '../spiffe/pem.ts'
import type { Address } from './config.ts'

export interface ServerCredential {
  /** DER, leaf first */
  readonly chain: readonly Uint8Array[]
  readonly key: KeyObject
}

/** What has to be passed again, whole, at each rotation: what is left out returns to its default. */
export function secureContext({ chain, key }: ServerCredential): SecureContextOptions {
  return {
    ...keyPairToPem({ chain, key }),
    minVersion: 'TLSv1.2',
    secureOptions: constants.SSL_OP_NO_TICKET,
  }
}

/**
 * Requests a client certificate and lets everybody finish the handshake: the caller verifies
 * `peerChain(socket)` itself before it reads a byte. No session is ever resumed.
 */
export function serverTls(credential: ServerCredential): TlsOptions {
  return {
    ...secureContext(credential),
    requestCert: true,
    // replaced by the caller's verifySvid over peerChain()
    rejectUnauthorized: false,
    handshakeTimeout: 15_000,
    ALPNProtocols: ['h2'],
  }
}

const longestChain = 10

/** The certificates that the peer sent, DER, leaf first; empty when it sent none. */
export function peerChain(socket: TLSSocket): Uint8Array[] {
  const chain: Uint8Array[] = []
  let it: X509Certificate | undefined = socket.getPeerX509Certificate()
  while (it !== undefined && chain.length < longestChain) {
    chain.push(it.raw)
    const next: X509Certificate | undefined = it.issuerCertificate
    if (next === undefined || next.fingerprint256 === it.fingerprint256) break
    it = next
  }
  return chain
}

/**
 * Fetches the CA certificate that `pin` (lower-case hex SHA-256) names from the chain a server presents.
 * Nothing is sent and nothing believed but that certificate: the caller then connects again with it as
 * the only root. Throws ERR_UNTRUSTED when the chain does not hold it.
 */
export async function fetchPinnedRoot(
  address: Address,
  pin: string,
  { signal }: { signal: AbortSignal },
): Promise<Uint8Array> {
  const { promise, resolve, reject } = Promise.withResolvers<Uint8Array[]>()
  // replaced by the comparison with the pin below
  const socket = connect({ ...address, rejectUnauthorized: false, ALPNProtocols: ['h2'] })
  const abort = () => socket.destroy(new Error('no answer in time'))
  signal.addEventListener('abort', abort, { once: true })
  socket.once('secureConnect', () => resolve(peerChain(socket)))
  socket.once('error', reject)
  try {
    const chain = await promise
    const root = chain.find((der) => fingerprintOf(der) === pin)
    if (root === undefined || !parseCertificate(root).isCa) {
      throw new IdentityError(
        'ERR_UNTRUSTED',
        `${address.host}:${address.port} does not present a CA certificate with fingerprint sha256:${pin}`,
      )
    }
    return root
  } catch (cause) {
    if (cause instanceof IdentityError) throw cause
    throw new IdentityError(
      'ERR_UNAVAILABLE',
      `cannot reach ${address.host}:${address.port}: ${explain(cause)}`,
      { cause },
    )
  } finally {
    signal.removeEventListener('abort', abort)
    socket.destroy()
  }
}
