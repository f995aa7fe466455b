// Which policies this node decides with: what the agent has taken in, and what its sidecars have put to use.
import type { MessageInitShape } from '@bufbuild/protobuf'
import type { EnforcementPointSchema } from '../../proto/gen/castellan/policy/v1/enforcement_pb.js'
import type { Knowledge } from '../knowledge.ts'
import type { Ledger } from './ledger.ts'

export type Point = MessageInitShape<typeof EnforcementPointSchema> & object

export interface InUse {
  /** the agent itself first */
  points(): readonly Point[]
  onChange(listener: () => void): Disposable
}

// a node has fewer; what says more is not waited for
const mostPoints = 10_000

export function policiesInUse(
  knowledge: Pick<Knowledge, 'policies' | 'onChange'>,
  ledger: Pick<Ledger, 'sidecars' | 'own' | 'onChange'>,
): InUse {
  return {
    points() {
      const sidecars = [...ledger.sidecars].slice(0, mostPoints)
      const held = { policies: knowledge.policies()?.version ?? 0n, refusal: '' }
      // one that decides uses what it decides with, not what it was told
      const { policies: own, refusal: ownRefusal } = ledger.own ?? held
      return [
        { version: own, refusal: ownRefusal },
        ...sidecars.map(({ id: spiffeId, pid, policies: version, refusal }) => ({
          ...{ spiffeId, pid, version, refusal },
        })),
      ]
    },
    onChange(listener) {
      const both = new DisposableStack()
      both.use(knowledge.onChange(listener))
      both.use(ledger.onChange(listener))
      return both
    },
  }
}
