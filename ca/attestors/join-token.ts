// Join tokens: one-time secrets that an administrator hands to a node (SPIRE's `join_token`).
import { createHash, randomBytes } from 'node:crypto'
import type { Clock } from '../../runtime/clock.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import { type SpiffeId, spiffeIdOf, type TrustDomain } from '../../spiffe/id.ts'
import { type NodeAttestor, vouch } from './attestor.ts'

const longestToken = 256

export function hashOfToken(token: string): Buffer {
  return createHash('sha256').update(token).digest()
}

/** 256 random bits, URL-safe. */
export function newToken(): string {
  return randomBytes(32).toString('base64url')
}

/**
 * The agent ID that joining with a token gives. SPIRE puts the token itself there; we put the first half
 * of its hash, because IDs are logged and tokens are secrets until they are used.
 */
export function agentIdOfToken(trustDomain: TrustDomain, token: string): SpiffeId {
  const name = hashOfToken(token).toString('hex').slice(0, 32)
  return spiffeIdOf(trustDomain, `/spire/agent/join_token/${name}`)
}

/** The agent ID of a payload. Throws ERR_BAD_REQUEST for what cannot be a token. */
export function agentIdOfPayload(trustDomain: TrustDomain, payload: Uint8Array): SpiffeId {
  return agentIdOfToken(trustDomain, tokenOfPayload(payload))
}

function tokenOfPayload(payload: Uint8Array): string {
  if (payload.length === 0 || payload.length > longestToken) {
    throw new IdentityError('ERR_BAD_REQUEST', 'a join token is 1 to 256 bytes', {
      fields: [{ field: 'params.data.payload', problem: 'not a join token' }],
    })
  }
  return Buffer.from(payload).toString('utf8')
}

/** Whether the token is good is decided where it is used up: in the transaction of the reservation. */
export function joinTokenAttestor(trustDomain: TrustDomain, clock: Clock): NodeAttestor {
  return {
    async attest(payload) {
      const token = tokenOfPayload(payload)
      return vouch({
        kind: 'node',
        agentId: agentIdOfToken(trustDomain, token),
        attestationType: 'join_token',
        selectors: [],
        canReattest: false,
        token: { hash: hashOfToken(token), now: clock.now() },
      })
    },
  }
}
