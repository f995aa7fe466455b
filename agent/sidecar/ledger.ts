// What the node's sidecars report, for the admin socket: counts, life signs, and the newest denials whole.
import type {
  DecisionCounts,
  Denial,
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
}

export interface Ledger {
  readonly sidecars: ReadonlySet<SidecarRecord>
  /** newest first */
  denials(): readonly Denial[]
  open(id: SpiffeId, pid: number): SidecarRecord
  close(record: SidecarRecord): void
  count(record: SidecarRecord, counts: DecisionCounts): void
  live(record: SidecarRecord, vitals: Vitals): void
  acknowledge(record: SidecarRecord, version: bigint): void
  onChange(listener: () => void): Disposable
}

const mostDenials = 1000

export function createLedger(): Ledger {
  const sidecars = new Set<SidecarRecord>()
  const topic = createTopic<void>()
  let denials: Denial[] = []
  return {
    sidecars,
    denials: () => denials,
    open(id, pid) {
      const record: SidecarRecord = {
        id,
        pid,
        allowed: 0n,
        denied: 0n,
        vitals: undefined,
        acknowledged: 0n,
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
      denials = [...counts.denials.toReversed(), ...denials].slice(0, mostDenials)
      topic.publish()
    },
    live(record, vitals) {
      record.vitals = vitals
      topic.publish()
    },
    acknowledge(record, version) {
      record.acknowledged = version
      topic.publish()
    },
    onChange: (listener) => topic.subscribe(listener),
  }
}
