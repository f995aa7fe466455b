// How the proxies that this agent drives stand: who is connected, what it has, what it refused and why.
import { createTopic } from '../../runtime/lifecycle.ts'
import type { SpiffeId } from '../../spiffe/id.ts'
import type { DrivenSpec } from './specs.ts'

export const kinds = ['clusters', 'endpoints', 'listeners', 'routes', 'secrets'] as const
export type Kind = (typeof kinds)[number]

/** What a client says it is: the form of what it gets, and nothing else. */
export type Form = 'envoy' | 'grpc'

/** where each finds who may pass */
const deciding: Readonly<Record<Form, readonly Kind[]>> = {
  envoy: ['listeners', 'routes'],
  grpc: ['listeners'],
}

export interface KindState {
  /** of the newest answer */
  told: string
  /** of the newest that was taken whole */
  taken: string
  /** what the proxy said when it refused the newest; empty when it did not */
  refusal: string
}

export interface ProxyRecord {
  /** whom it speaks as; undefined for one without a spec */
  id: SpiffeId | undefined
  readonly pid: number
  readonly uid: number
  /** what it says of itself */
  node: string
  form: Form
  readonly kinds: Map<Kind, KindState>
  /** of the policies that it enforces */
  policies: bigint
  /** why the agent is asked, or nobody gets in: by listener; and what is done otherwise than the spec says */
  remarks: readonly string[]
  /** listeners where nobody gets in */
  closed: number
}

export interface ProxyLedger {
  readonly proxies: ReadonlySet<ProxyRecord>
  open(caller: Pick<ProxyRecord, 'pid' | 'uid'>): ProxyRecord
  close(record: ProxyRecord): void
  /** Says that a record has changed. */
  tell(): void
  /** The specs of this node. */
  specs(): readonly DrivenSpec[]
  followSpecs(read: () => readonly DrivenSpec[]): void
  onChange(listener: () => void): Disposable
}

export function createProxyLedger(): ProxyLedger {
  const proxies = new Set<ProxyRecord>()
  const topic = createTopic<void>()
  let specs: () => readonly DrivenSpec[] = () => []
  return {
    proxies,
    open({ pid, uid }) {
      const record: ProxyRecord = {
        ...{ id: undefined, pid, uid, node: '', form: 'envoy', kinds: new Map() },
        ...{ policies: 0n, remarks: [], closed: 0 },
      }
      proxies.add(record)
      topic.publish()
      return record
    },
    close(record) {
      proxies.delete(record)
      topic.publish()
    },
    tell: () => topic.publish(),
    specs: () => specs(),
    followSpecs(read) {
      specs = read
    },
    onChange: (listener) => topic.subscribe(listener),
  }
}

export const refusalsOf = ({ kinds: all }: ProxyRecord): string[] =>
  [...all].flatMap(([kind, { refusal }]) => (refusal === '' ? [] : [`${kind}: ${refusal}`]))

export function stateIn({ kinds: all }: ProxyRecord, kind: Kind) {
  const known = all.get(kind) ?? { told: '', taken: '', refusal: '' }
  all.set(kind, known)
  return known
}

/**
 * Whether what was told of policies is in force, as far as the proxy says; what of it is empty no proxy asks for: with
 * nothing but bytes there are no routes.
 */
export function isInForce(record: ProxyRecord, isEmpty: (kind: Kind) => boolean): boolean {
  return deciding[record.form].every((kind) => {
    const state = record.kinds.get(kind)
    if (state === undefined && isEmpty(kind)) return true
    return state !== undefined && state.refusal === '' && state.told === state.taken
  })
}

/** Where a listener of an identity's proxy leads to; to itself where no spec says more. */
export const workloadPortOf =
  ({ specs }: Pick<ProxyLedger, 'specs'>) =>
  (id: SpiffeId, listener: number | undefined): number | undefined => {
    const spec = specs().find(({ identity }) => identity === id)?.spec
    return spec?.inbound.find(({ listen }) => listen.port === listener)?.forwardTo.port ?? listener
  }
