// When an SVID is renewed: once decided, never drawn again.
import { createHash } from 'node:crypto'

/** From 0 to 1, fixed once per certificate: nodes that got theirs together do not renew together. */
function spreadOf(leaf: Uint8Array): number {
  return createHash('sha256').update(leaf).digest().readUInt32BE(0) / 2 ** 32
}

/**
 * A point in 40 to 60 % of what was left at receipt, in milliseconds since the epoch. It follows from the
 * certificate itself, so that it stays the same over restarts and differs between certificates.
 */
export function renewalPoint(leaf: Uint8Array, receivedAt: number, notAfter: number): number {
  return receivedAt + (notAfter - receivedAt) * (0.4 + 0.2 * spreadOf(leaf))
}

/** milliseconds over which the certificates of a tainted authority are replaced */
const taintSpread = 30_000

/** When a certificate is renewed whose authority was tainted at `taintedAt`: at once, spread over time. */
export function taintPoint(leaf: Uint8Array, taintedAt: number, notAfter: number): number {
  const room = Math.max(0, notAfter - taintedAt) / 4
  return taintedAt + Math.min(taintSpread, room) * spreadOf(leaf)
}
