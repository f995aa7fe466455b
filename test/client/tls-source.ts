// An X509 source for TLS that the test moves, and connections that are read to their end.
import { once } from 'node:events'
import type { TLSSocket } from 'node:tls'
import type { TlsSource } from '../../client/credential.ts'
import { revocationOf } from '../../client/revocation.ts'
import type { OwnSvid, X509Context } from '../../client/x509-source.ts'
import { createTopic } from '../../runtime/lifecycle.ts'
import { bundleSourceOf, type X509Bundle } from '../../spiffe/bundle.ts'

export interface MovableSource extends TlsSource {
  /** Another state: one SVID, the bundle of its own trust domain first. */
  put(svid: OwnSvid, ...bundles: readonly X509Bundle[]): void
  putAll(svids: X509Context['svids'], ...bundles: readonly X509Bundle[]): void
  withdraw(): void
  /** The same state, and these revocation lists (DER). */
  revoke(...crls: readonly Uint8Array[]): void
}

export function tlsSource(svid: OwnSvid, ...bundles: readonly X509Bundle[]): MovableSource {
  const topic = createTopic<X509Context | undefined>()
  let known = bundles
  let revoked = revocationOf([])
  let current: X509Context | undefined = { svids: [svid], bundles: bundleSourceOf(...bundles) }

  function publish(context: X509Context | undefined, next: readonly X509Bundle[]): void {
    current = context
    known = next
    topic.publish(context)
  }
  const source: MovableSource = {
    current: () => current,
    ready: async () => current ?? { svids: [svid], bundles: bundleSourceOf() },
    trouble: () => undefined,
    subscribe: (listener) => topic.subscribe(listener),
    svid: (pick = ([first]) => first) => current && pick(current.svids),
    bundles: () => known,
    put: (next, ...more) => source.putAll([next], ...more),
    putAll: (svids, ...more) => publish({ svids, bundles: bundleSourceOf(...more) }, more),
    withdraw: () => publish(undefined, []),
    revoked: (path) => revoked(path),
    revoke(...crls) {
      revoked = revocationOf(crls)
      publish(current, known)
    },
  }
  return source
}

/** All that comes until the other side ends or breaks the connection. */
export async function textOf(socket: TLSSocket): Promise<string> {
  const parts: Buffer[] = []
  socket.on('data', (part) => parts.push(part))
  if (!socket.closed) await new Promise((resolve) => socket.once('close', resolve))
  return Buffer.concat(parts).toString()
}

/** The first bytes that come. */
export async function nextOf(socket: TLSSocket): Promise<string> {
  const [part]: unknown[] = await once(socket, 'data')
  return String(part)
}
