// When an SVID is renewed: once decided, never drawn again.
import { createHash } from 'node:crypto'

/**
 * A point in 40 to 60 % of what was left at receipt, in milliseconds since the epoch. It follows from the
 * certificate itself, so that it stays the same over restarts and differs between certificates.
 */
export function renewalPoint(leaf: Uint8Array, receivedAt: number, notAfter: number): number {
  const spread = createHash('sha256').update(leaf).digest().readUInt32BE(0) / 2 ** 32
  return receivedAt + (notAfter - receivedAt) * (0.4 + 0.2 * spread)
}
