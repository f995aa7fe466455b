// Node attestation: evidence in, facts about the node out; it says nothing of what the node may have.
import type { SpiffeId } from '../../spiffe/id.ts'
import { createMint, type Minted } from '../mint.ts'
import type { AgentRow, SelectorRow, TokenUse } from '../store/model.ts'

/** Who stands before us, and how we know. */
export type Facts =
  | {
      /** a node that joins; its evidence was looked at, a token is used up with the reservation */
      readonly kind: 'node'
      readonly agentId: SpiffeId
      readonly attestationType: string
      readonly selectors: readonly SelectorRow[]
      readonly canReattest: boolean
      readonly token?: TokenUse
    }
  /** an attested agent, by the certificate of its connection */
  | { readonly kind: 'agent'; readonly agent: AgentRow }
  /** the local socket, or an SVID whose entry says admin */
  | { readonly kind: 'administrator'; readonly name: string }
  /** a service account of Istio's, by token or certificate; `name` says by which */
  | { readonly kind: 'service account'; readonly id: SpiffeId; readonly name: string }
  /** the authority itself, for its own TLS certificate */
  | { readonly kind: 'self' }

/** Facts that an attestor vouches for; made only here, by those who looked at evidence. */
export type Attested = Minted<'attestation', Facts>

const attestations = createMint<'attestation', Facts>('attestation')

export const vouch = attestations.mint

/** Throws TypeError for facts that no attestor vouched for. */
export const checkVouched = attestations.check

/** Sends a challenge to the node and resolves with its answer; an attestor may ask once. */
export type Challenge = (question: Uint8Array) => Promise<Uint8Array>

/**
 * One way to attest a node. Throws ERR_JOIN_TOKEN or ERR_DENIED for evidence that does not convince,
 * ERR_BAD_REQUEST for evidence that cannot be read.
 */
export interface NodeAttestor {
  /** `csr` is what the certificate is asked for with: evidence only to who proves it. */
  attest(payload: Uint8Array, csr: Uint8Array, challenge: Challenge): Promise<Attested>
}
