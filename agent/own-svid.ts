// The agent's own SVID: what it proves itself with to the authority.
import type { KeyObject } from 'node:crypto'
import type { X509SVID } from '../proto/gen/spire/api/types/x509svid_pb.js'
import type { X509Bundle } from '../spiffe/bundle.ts'
import { bundleSourceOf } from '../spiffe/bundle.ts'
import type { Serial } from '../spiffe/certificate.ts'
import { IdentityError } from '../spiffe/errors.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import { verifySvid } from '../spiffe/svid.ts'

export interface AgentSvid {
  readonly id: SpiffeId
  /** DER, leaf first */
  readonly chain: readonly Uint8Array[]
  readonly key: KeyObject
  readonly serial: Serial
  /** milliseconds since the epoch */
  readonly notAfter: number
  readonly receivedAt: number
}

/** What an answer of the authority holds, verified against the bundle: nothing else is put to use. */
export function receivedSvid(
  message: X509SVID | undefined,
  key: KeyObject,
  bundle: X509Bundle,
  now: number,
): AgentSvid {
  if (message === undefined)
    throw new IdentityError('ERR_CERTIFICATE', 'the authority answered without an SVID')
  const { id, leaf } = verifySvid(message.certChain, bundleSourceOf(bundle), { now })
  return {
    id,
    chain: message.certChain,
    key,
    serial: leaf.serial,
    notAfter: leaf.notAfter,
    receivedAt: now,
  }
}
