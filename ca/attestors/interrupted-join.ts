// A join whose answer was lost: the token is used up, the node has the key, the authority the certificate.
// This is no second use of the token. Who signs with the key of an agent's certificate may renew it anyway.
import type { Clock } from '../../runtime/clock.ts'
import { type Certificate, parseCertificate } from '../../spiffe/certificate.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import type { SpiffeId, TrustDomain } from '../../spiffe/id.ts'
import { proveCsr } from '../csr.ts'
import { type AgentRow, unusableToken } from '../store/model.ts'
import type { Store } from '../store/store.ts'
import { type NodeAttestor, vouch } from './attestor.ts'
import { agentIdOfPayload } from './join-token.ts'

export const interruptedJoin = 'castellan_interrupted_join'

export interface KnownAgents {
  readonly trustDomain: TrustDomain
  readonly clock: Clock
  readonly agents: ReadonlyMap<SpiffeId, AgentRow>
  readonly issued: Pick<Store['issuance'], 'find'>
}

/** Its evidence: the token that was used, and a CSR by the key that it was used with. */
export function interruptedJoinAttestor(known: KnownAgents): NodeAttestor {
  async function certificateOf({ serial }: AgentRow): Promise<Certificate | undefined> {
    if (serial === '') return undefined
    const row = await known.issued.find(serial)
    return row && parseCertificate(row.certificate)
  }

  return {
    async attest(payload, csr) {
      const { publicKey } = proveCsr(csr)
      const agent = known.agents.get(agentIdOfPayload(known.trustDomain, payload))
      const certificate = agent && (await certificateOf(agent))
      if (
        agent === undefined ||
        certificate === undefined ||
        certificate.notAfter <= known.clock.now() ||
        Buffer.compare(certificate.publicKey, publicKey) !== 0
      ) {
        throw new IdentityError('ERR_JOIN_TOKEN', unusableToken)
      }
      return vouch({ kind: 'agent', agent })
    },
  }
}
