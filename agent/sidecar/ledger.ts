// What the node's sidecars report, for the admin socket: counts, life signs, and the newest denials whole.
import type {
  DecisionCounts,
  Denial,
  Flow,
  SidecarServices,
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
  /** what it serves, as identities of its own, and which services it looks for */
  services: SidecarServices | undefined
  /** version of the state that it has put to use */
  acknowledged: bigint
  /** that of the policies in it */
  policies: bigint
  /** why it refused a later one; empty when it did not */
  refusal: string
}

/** What the agent decides by itself, for proxies that ask it. */
export interface OwnRecord extends Pick<SidecarRecord, 'allowed' | 'denied'> {
  /** version of the policies in force, 0 before the first */
  readonly policies: bigint
  /** why a later one was refused; empty when none was */
  readonly refusal: string
}

export interface Ledger {
  readonly sidecars: ReadonlySet<SidecarRecord>
  /** undefined where nobody may ask it */
  readonly own: OwnRecord | undefined
  decidesWith(policies: Pick<OwnRecord, 'policies' | 'refusal'>): void
  countOwn(counts: DecisionCounts): void
  /** newest first */
  denials(): readonly Denial[]
  open(id: SpiffeId, pid: number): SidecarRecord
  close(record: SidecarRecord): void
  /** who called whom since the agent started, and what was decided */
  flows(): readonly Flow[]
  count(record: SidecarRecord, counts: DecisionCounts): void
  live(record: SidecarRecord, vitals: Vitals): void
  serves(record: SidecarRecord, services: SidecarServices): void
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

function createDenials() {
  let newest: readonly Denial[] = []
  return {
    newest: () => newest,
    add(more: readonly Denial[]) {
      newest = [...more.toReversed(), ...newest].slice(0, mostDenials)
    },
  }
}

/** `decides` where proxies may ask the agent itself: its policies are in use only once that socket has them. */
export function createLedger({ decides = false }: { readonly decides?: boolean } = {}): Ledger {
  const sidecars = new Set<SidecarRecord>()
  const topic = createTopic<void>()
  const flows = createFlows()
  const denials = createDenials()
  let own: OwnRecord | undefined = decides
    ? { allowed: 0n, denied: 0n, policies: 0n, refusal: '' }
    : undefined

  function change(record: SidecarRecord, part: Partial<SidecarRecord>): void {
    Object.assign(record, part)
    topic.publish()
  }

  function add({ flows: more, denials: newest }: DecisionCounts): void {
    for (const flow of more) flows.add(flow)
    denials.add(newest)
  }

  return {
    sidecars,
    denials: denials.newest,
    get own() {
      return own
    },
    decidesWith({ policies, refusal }) {
      const { allowed = 0n, denied = 0n } = own ?? {}
      own = { allowed, denied, policies, refusal: refusal.slice(0, longestRefusal) }
      topic.publish()
    },
    countOwn(counts) {
      if (own === undefined) return
      const { allowed, denied } = own
      own = { ...own, allowed: allowed + counts.allowed, denied: denied + counts.denied }
      add(counts)
      topic.publish()
    },
    flows: flows.all,
    open(id, pid) {
      const record: SidecarRecord = {
        id,
        pid,
        allowed: 0n,
        denied: 0n,
        vitals: undefined,
        services: undefined,
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
      add(counts)
      topic.publish()
    },
    live: (record, vitals) => change(record, { vitals }),
    serves: (record, services) => change(record, { services }),
    acknowledge: (record, of) => change(record, { ...of, refusal: '' }),
    refuse: (record, problem) => change(record, { refusal: problem.slice(0, longestRefusal) }),
    onChange: (listener) => topic.subscribe(listener),
  }
}
