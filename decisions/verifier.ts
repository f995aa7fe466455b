// Peer verification with a short memory: the same chain is not verified twice in half a minute.
import { createHash } from 'node:crypto'
import type { Clock } from '../runtime/clock.ts'
import type { BundleSource } from '../spiffe/bundle.ts'
import { type Presented, presentedOf } from '../spiffe/deny-list.ts'
import { verifySvid } from '../spiffe/svid.ts'

export interface VerifiedPeer extends Presented {
  /** milliseconds since the epoch after which this says nothing any more */
  readonly until: number
}

/** Throws ERR_UNTRUSTED with the reason. */
export type Verify = (chain: readonly Uint8Array[]) => VerifiedPeer

const longestMemory = 30_000
const mostRemembered = 4096

function digestOf(chain: readonly Uint8Array[]): string {
  const hash = createHash('sha256')
  for (const der of chain) hash.update(der)
  return hash.digest('base64')
}

/** Speaks for one state of the bundles: another state needs another verifier, with an empty memory. */
export function createVerifier(bundles: BundleSource, clock: Clock): Verify {
  const known = new Map<string, VerifiedPeer>()
  return (chain) => {
    const now = clock.now()
    const digest = digestOf(chain)
    const remembered = known.get(digest)
    if (remembered !== undefined && now < remembered.until) return remembered
    known.delete(digest)
    const svid = verifySvid(chain, bundles, { now })
    const notAfter = Math.min(...svid.path.map((it) => it.notAfter))
    const peer = { ...presentedOf(svid), until: Math.min(notAfter, now + longestMemory) }
    const [oldest] = known.keys()
    if (known.size >= mostRemembered && oldest !== undefined) known.delete(oldest)
    known.set(digest, peer)
    return peer
  }
}
