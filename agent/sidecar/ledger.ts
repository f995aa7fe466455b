// What the node's sidecars report, for the admin socket: counts, life signs, and the newest denials whole.
import type {
  DecisionCounts,
  Denial,
  Flow,
  Vitals,
} from '../../proto/gen/castellan/workload/v1/sidecar_pb.js'
import { createTopic } from '../../runtime/lifecycle.ts'
import type { SpiffeId } from '../../spiffe/id.ts'

export interface SidecarRecord {
  readonly id: SpiffeId
  readonly pid: number
  allowed: bigint
  denied: bigint
  vitals: Vitals | undefined
  /** version of the state that it has put to use */
  acknowledged: bigint
  /** that of the policies in it */
  policies: bigint
  /** why it refused a later one; empty when it did not */
  refusal: string
}

export interface Ledger {
  readonly sidecars: ReadonlySet<SidecarRecord>
  /** newest first */
  denials(): readonly Denial[]
  open(id: SpiffeId, pid: number): SidecarRecord
  close(record: SidecarRecord): void
  /** who called whom since the agent started, and what was decided */
  flows(): readonly Flow[]
  count(record: SidecarRecord, counts: DecisionCounts): void
  live(record: SidecarRecord, vitals: Vitals): void
  acknowledge(record: SidecarRecord, of: Pick<SidecarRecord, 'acknowledged' | 'policies'>): void
  refuse(record: SidecarRecord, problem: string): void
  onChange(listener: () => void): Disposable
}

const mostDenials = 1000
const longestRefusal = 1000
const mostFlows = 10_000
/** of a SPIFFE ID and a policy's name */
const longestNames = 4096
const others = '(others)'

/** Counts by who asked whom; what is one kind too many is counted as one of "(others)". */
function createFlows() {
  const flows = new Map<string, Flow>()
  const add = (key: string, flow: Flow) => {
    const known = flows.get(key)
    flows.set(key, known === undefined ? flow : { ...known, count: known.count + flow.count })
  }
  return {
    all: () => [...flows.values()],
    add(flow: Flow) {
      const { source, destination, outcome, policy, rule } = flow
      if (source.length + policy.length > longestNames) return
      const key = `${source} ${destination} ${outcome} ${policy} ${rule}`
      if (flows.has(key) || flows.size < mostFlows) add(key, flow)
      else add(`${outcome}`, { ...flow, source: others, destination: others, policy: '', rule: 0 })
    },
  }
}

export function createLedger(): Ledger {
  const sidecars = new Set<SidecarRecord>()
  const topic = createTopic<void>()
  const flows = createFlows()
  let denials: Denial[] = []
  return {
    sidecars,
    denials: () => denials,
    flows: flows.all,
    open(id, pid) {
      const record: SidecarRecord = {
        id,
        pid,
        allowed: 0n,
        denied: 0n,
        vitals: undefined,
        acknowledged: 0n,
        policies: 0n,
        refusal: '',
      }
      sidecars.add(record)
      topic.publish()
      return record
    },
    close(record) {
      sidecars.delete(record)
      topic.publish()
    },
    count(record, counts) {
      record.allowed += counts.allowed
      record.denied += counts.denied
      for (const flow of counts.flows) flows.add(flow)
      denials = [...counts.denials.toReversed(), ...denials].slice(0, mostDenials)
      topic.publish()
    },
    live(record, vitals) {
      record.vitals = vitals
      topic.publish()
    },
    acknowledge(record, of) {
      Object.assign(record, of, { refusal: '' })
      topic.publish()
    },
    refuse(record, problem) {
      record.refusal = problem.slice(0, longestRefusal)
      topic.publish()
    },
    onChange: (listener) => topic.subscribe(listener),
  }
}
