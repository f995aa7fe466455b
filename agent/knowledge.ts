// What the authority has told this agent, as one value that others read and follow.
import type { AuthorityMessage } from '../proto/gen/castellan/control/v1/control_pb.js'
import type { PolicySet } from '../proto/gen/castellan/policy/v1/policy_pb.js'
import type { Entry } from '../proto/gen/spire/api/types/entry_pb.js'
import { createTopic } from '../runtime/lifecycle.ts'
import { bundleOf, type X509Bundle } from '../spiffe/bundle.ts'
import { isSpiffeId, type SpiffeId, type TrustDomain } from '../spiffe/id.ts'

export interface AgentEntry {
  readonly id: string
  readonly revision: bigint
  readonly spiffeId: SpiffeId
  /** `type:value` */
  readonly selectors: readonly string[]
  readonly hint: string
  /** seconds since the epoch */
  readonly createdAt: bigint
}

export interface Knowledge {
  readonly entries: ReadonlyMap<string, AgentEntry>
  bundle(): X509Bundle
  policies(): PolicySet | undefined
  /** the resume cursor, and the store that it is of */
  place(): { readonly cursor: bigint; readonly epoch: string }
  /** Whether the authority was heard at least once since the start. */
  isComplete(): boolean
  /** Takes a message in, whole, then tells the listeners. */
  apply(message: AuthorityMessage): void
  onChange(listener: () => void): Disposable
}

function entryOf({
  id,
  revisionNumber,
  spiffeId,
  selectors,
  hint,
  createdAt,
}: Entry): AgentEntry | undefined {
  const uri = `spiffe://${spiffeId?.trustDomain ?? ''}${spiffeId?.path ?? ''}`
  if (!isSpiffeId(uri)) return undefined
  const texts = selectors.map(({ type, value }) => `${type}:${value}`)
  return { id, revision: revisionNumber, spiffeId: uri, selectors: texts, hint, createdAt }
}

export function createKnowledge(trustDomain: TrustDomain, first: X509Bundle): Knowledge {
  const entries = new Map<string, AgentEntry>()
  const topic = createTopic<void>()
  let bundle = first
  let policies: PolicySet | undefined
  let place = { cursor: 0n, epoch: '' }
  let isComplete = false
  return {
    entries,
    bundle: () => bundle,
    policies: () => policies,
    place: () => place,
    isComplete: () => isComplete,
    apply(message) {
      // parsed first: a message that cannot be read changes nothing
      const next =
        message.bundle &&
        bundleOf(
          trustDomain,
          message.bundle.x509Authorities.map(({ asn1 }) => asn1),
        )
      if (message.snapshot) entries.clear()
      for (const id of message.deletedEntries) entries.delete(id)
      for (const wire of message.entries) {
        const entry = entryOf(wire)
        if (entry !== undefined) entries.set(entry.id, entry)
      }
      bundle = next ?? bundle
      policies = message.policies ?? policies
      place = { cursor: message.cursor, epoch: message.epoch }
      const isNews = !isComplete || message.snapshot || hasContent(message)
      isComplete = true
      if (isNews) topic.publish()
    },
    onChange: (listener) => topic.subscribe(listener),
  }
}

/** Whether a message says anything; one that does not is a heartbeat. */
function hasContent({ entries, deletedEntries, bundle, policies }: AuthorityMessage): boolean {
  return (
    entries.length + deletedEntries.length > 0 || bundle !== undefined || policies !== undefined
  )
}

/** Entries whose selectors the caller has all of, oldest first: the first is the default identity. */
export function entriesFor(knowledge: Knowledge, selectors: ReadonlySet<string>): AgentEntry[] {
  return [...knowledge.entries.values()]
    .filter((entry) => entry.selectors.every((selector) => selectors.has(selector)))
    .sort((a, b) => Number(a.createdAt - b.createdAt) || (a.id < b.id ? -1 : 1))
}
