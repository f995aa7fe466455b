// Who is at the other end of a TLS connection: verified before a byte of it is given out, and again for
// as long as it lives.
import type { Duplex } from 'node:stream'
import type { DetailedPeerCertificate, TLSSocket } from 'node:tls'
import { type Clock, sleepUntil } from '../runtime/clock.ts'
import { run } from '../runtime/lifecycle.ts'
import { IdentityError } from '../spiffe/errors.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Matcher } from '../spiffe/match.ts'
import { verifySvid, type X509Svid } from '../spiffe/svid.ts'
import type { TlsSource } from './credential.ts'

export interface PeerRules {
  /** whom to talk to; there is no default */
  readonly accept: Matcher
  readonly clock: Clock
}

const longestChain = 10

/** DER, leaf first. Not by getPeerX509Certificate, whose first call takes the chain away from all others. */
function peerChain(socket: TLSSocket): Uint8Array[] {
  const chain: Uint8Array[] = []
  let it: DetailedPeerCertificate | undefined = socket.getPeerCertificate(true)
  while (it?.raw !== undefined && chain.length < longestChain) {
    chain.push(it.raw)
    if (it.issuerCertificate === it) break
    it = it.issuerCertificate
  }
  return chain
}

/** For programs that no compiler has told: without a matcher nobody would be refused. */
export function requireMatcher(accept: unknown): void {
  if (typeof accept !== 'function') {
    throw new TypeError('accept has to be a matcher, such as matchId(id) or matchMemberOf(domain)')
  }
}

/** How to verify the peer of `socket` now. Throws ERR_UNTRUSTED, or ERR_NO_IDENTITY without bundles. */
export function peerOf(socket: TLSSocket, source: TlsSource, rules: PeerRules): () => X509Svid {
  const chain = peerChain(socket)
  return () => {
    const context = source.current()
    if (context === undefined) {
      throw new IdentityError('ERR_NO_IDENTITY', 'this side has no identity at present')
    }
    // OpenSSL has looked at a pool of roots: this looks at those of the peer's own trust domain
    const now = rules.clock.now()
    const svid = verifySvid(chain, context.bundles, { now, match: rules.accept })
    const revoked = source.revoked(svid.path)
    if (revoked !== undefined) throw new IdentityError('ERR_UNTRUSTED', `${svid.id}: ${revoked}`)
    return svid
  }
}

const verified = new WeakMap<Duplex, SpiffeId>()

/** The SPIFFE ID that the peer has proven; undefined for a connection that this library did not verify. */
export function peerIdOf(socket: Duplex): SpiffeId | undefined {
  return verified.get(socket)
}

const asError = (error: unknown) => (error instanceof Error ? error : new Error(String(error)))

/**
 * Verifies the peer, and again after each change of the source and when a certificate of its path ends;
 * the connection is destroyed when it no longer holds. Throws as `peerOf`.
 */
export function admitPeer(socket: TLSSocket, source: TlsSource, rules: PeerRules): SpiffeId {
  if (socket.isSessionReused()) {
    throw new IdentityError('ERR_UNTRUSTED', 'a resumed session, whose peer has shown nothing')
  }
  const verify = peerOf(socket, source, rules)
  let peer = verify()
  const verifyAgain = () => {
    if (socket.destroyed) return
    try {
      peer = verify()
    } catch (error) {
      socket.destroy(asError(error))
    }
  }
  const subscription = source.subscribe(verifyAgain)
  const watch = run(async (signal) => {
    while (!socket.destroyed) {
      const end = Math.min(...peer.path.map(({ notAfter }) => notAfter))
      await sleepUntil(rules.clock, end + 1, { signal })
      verifyAgain()
    }
  })
  socket.once('close', () => {
    subscription[Symbol.dispose]()
    void watch[Symbol.asyncDispose]()
  })
  // a peer that breaks off must not end the process of a program that did not listen
  socket.on('error', () => {})
  verified.set(socket, peer.id)
  return peer.id
}
