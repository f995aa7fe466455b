// What the authority has told this agent, as one value that others read and follow.
import { denyListOf } from '../client/deny-list.ts'
import type { AuthorityMessage, Revocation } from '../proto/gen/castellan/control/v1/control_pb.js'
import type { DenyList as DenyListMessage } from '../proto/gen/castellan/deny/v1/deny_pb.js'
import type { PolicySet } from '../proto/gen/castellan/policy/v1/policy_pb.js'
import type { Bundle } from '../proto/gen/spire/api/types/bundle_pb.js'
import type { Entry } from '../proto/gen/spire/api/types/entry_pb.js'
import type { Clock } from '../runtime/clock.ts'
import { createTopic } from '../runtime/lifecycle.ts'
import { bundleOf, type X509Bundle } from '../spiffe/bundle.ts'
import { type DenyList, denyNothing } from '../spiffe/deny-list.ts'
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

/** What is believed no more: to be asked, to be passed on, and as CRLs. */
export interface KnownRevocation {
  readonly denyList: DenyList
  readonly message: DenyListMessage | undefined
  /** DER, one for each authority, or none */
  readonly crls: readonly Uint8Array[]
}

export interface Knowledge {
  readonly entries: ReadonlyMap<string, AgentEntry>
  bundle(): X509Bundle
  /** When this agent heard that the authority of that name is tainted; undefined when it is not. */
  taintedAt(subject: Uint8Array): number | undefined
  policies(): PolicySet | undefined
  revocation(): KnownRevocation
  /** Whether that identity is on the deny-list now. */
  isDenied(id: SpiffeId): boolean
  /** the resume cursor, and the store that it is of; none after a rehearsal that failed */
  place(): { readonly cursor: bigint; readonly epoch: string }
  /** Whether the authority was heard at least once since the start. */
  isComplete(): boolean
  /** Takes a message in, whole, then tells the listeners. */
  apply(message: AuthorityMessage): void
  /** Whether leaves of the authorities that are about to sign would be believed. */
  rehearsed(isGood: boolean): void
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

const nameKey = (subject: Uint8Array) => Buffer.from(subject).toString('base64')

/** The names of the tainted authorities; those that were known keep the time at which they were. */
function taintsOf(
  { authorities }: X509Bundle,
  message: Bundle,
  { known, now }: { known: ReadonlyMap<string, number>; now: number },
): ReadonlyMap<string, number> {
  const names = authorities.flatMap(({ subject }, i) =>
    message.x509Authorities[i]?.tainted === true ? [nameKey(subject)] : [],
  )
  return new Map(names.map((name) => [name, known.get(name) ?? now]))
}

const nowhere: { readonly cursor: bigint; readonly epoch: string } = { cursor: 0n, epoch: '' }

export function createKnowledge(
  trustDomain: TrustDomain,
  first: X509Bundle,
  clock: Clock,
): Knowledge {
  const entries = new Map<string, AgentEntry>()
  const topic = createTopic<void>()
  let bundle = first
  let tainted: ReadonlyMap<string, number> = new Map()
  let policies: PolicySet | undefined
  let revocation: KnownRevocation = { denyList: denyNothing, message: undefined, crls: [] }
  let place = nowhere
  let isComplete = false
  let isRehearsed = true
  return {
    entries,
    bundle: () => bundle,
    taintedAt: (subject) => tainted.get(nameKey(subject)),
    policies: () => policies,
    revocation: () => revocation,
    isDenied: (id) => revocation.denyList.againstId(id, clock.now()) !== undefined,
    place: () => (isRehearsed ? place : nowhere),
    rehearsed(isGood) {
      isRehearsed = isGood
    },
    isComplete: () => isComplete,
    apply(message) {
      // parsed first: a message that cannot be read changes nothing
      const next =
        message.bundle &&
        bundleOf(
          trustDomain,
          message.bundle.x509Authorities.map(({ asn1 }) => asn1),
        )
      const nextRevocation = message.revocation && revocationOf(message.revocation)
      if (message.snapshot) entries.clear()
      for (const id of message.deletedEntries) entries.delete(id)
      for (const wire of message.entries) {
        const entry = entryOf(wire)
        if (entry !== undefined) entries.set(entry.id, entry)
      }
      if (next !== undefined && message.bundle !== undefined) {
        tainted = taintsOf(next, message.bundle, { known: tainted, now: clock.now() })
        bundle = next
      }
      policies = message.policies ?? policies
      revocation = nextRevocation ?? revocation
      place = { cursor: message.cursor, epoch: message.epoch }
      const isNews = !isComplete || message.snapshot || hasContent(message)
      isComplete = true
      if (isNews) topic.publish()
    },
    onChange: (listener) => topic.subscribe(listener),
  }
}

/** Whether a message says anything; one that does not is a heartbeat. */
function hasContent({ entries, deletedEntries, ...rest }: AuthorityMessage): boolean {
  const whole = [rest.bundle, rest.policies, rest.revocation]
  return entries.length + deletedEntries.length > 0 || whole.some((it) => it !== undefined)
}

function revocationOf({ denyList: message, crls }: Revocation): KnownRevocation {
  return { denyList: denyListOf(message), message, crls }
}

/**
 * Entries whose selectors the caller has all of, oldest first: the first is the default identity. Who is
 * on the deny-list has none.
 */
export function entriesFor(knowledge: Knowledge, selectors: ReadonlySet<string>): AgentEntry[] {
  return [...knowledge.entries.values()]
    .filter((entry) => entry.selectors.every((selector) => selectors.has(selector)))
    .filter(({ spiffeId }) => !knowledge.isDenied(spiffeId))
    .sort((a, b) => Number(a.createdAt - b.createdAt) || (a.id < b.id ? -1 : 1))
}
