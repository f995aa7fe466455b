// Which policies this node decides with: what the agent has taken in, and what its sidecars have put to use.
import type { MessageInitShape } from '@bufbuild/protobuf'
import type { EnforcementPointSchema } from '../../proto/gen/castellan/policy/v1/enforcement_pb.js'
import type { Knowledge } from '../knowledge.ts'
import { type ProxyLedger, type ProxyRecord, refusalsOf } from '../proxies/ledger.ts'
import type { Ledger } from './ledger.ts'

export type Point = MessageInitShape<typeof EnforcementPointSchema> & object

export interface InUse {
  /** the agent itself first */
  points(): readonly Point[]
  onChange(listener: () => void): Disposable
}

// a node has fewer; what says more is not waited for
const mostPoints = 10_000

/** Who decides on this node beside the agent itself. */
export interface Points {
  readonly ledger: Pick<Ledger, 'sidecars' | 'own' | 'onChange'>
  readonly proxies: Pick<ProxyLedger, 'proxies' | 'onChange'>
}

/** One that is given nothing but secrets enforces no policies of ours. */
function pointOf(proxy: ProxyRecord): Point[] {
  const { id: spiffeId, pid, policies: version } = proxy
  if (spiffeId === undefined) return []
  return [{ spiffeId, pid, version, refusal: refusalsOf(proxy).join('; ') }]
}

export function policiesInUse(
  knowledge: Pick<Knowledge, 'policies' | 'onChange'>,
  { ledger, proxies }: Points,
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
        ...[...proxies.proxies].slice(0, mostPoints).flatMap(pointOf),
      ]
    },
    onChange(listener) {
      const both = new DisposableStack()
      both.use(knowledge.onChange(listener))
      both.use(ledger.onChange(listener))
      both.use(proxies.onChange(listener))
      return both
    },
  }
}
