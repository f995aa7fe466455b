// What the authority has told this agent, as one value that others read and follow.
import { create } from '@bufbuild/protobuf'
import { denyListOf } from '../client/deny-list.ts'
import {
  type AuthorityMessage,
  AuthorityMessageSchema,
  type Endpoint,
  type Revocation,
} from '../proto/gen/castellan/control/v1/control_pb.js'
import type { DenyList as DenyListMessage } from '../proto/gen/castellan/deny/v1/deny_pb.js'
import type { PolicySet } from '../proto/gen/castellan/policy/v1/policy_pb.js'
import type { Clock } from '../runtime/clock.ts'
import { createTopic } from '../runtime/lifecycle.ts'
import type { X509Bundle } from '../spiffe/bundle.ts'
import { type DenyList, denyNothing } from '../spiffe/deny-list.ts'
import type { SpiffeId, TrustDomain } from '../spiffe/id.ts'
import { type AgentEntry, createKnownEntries } from './entries.ts'
import { federatedOf, noTaints, type Taints, type Trust, trustOf } from './trust.ts'

/** What is believed no more: to be asked, to be passed on, and as CRLs. */
export interface KnownRevocation {
  readonly denyList: DenyList
  readonly message: DenyListMessage | undefined
  /** DER, one for each authority, or none */
  readonly crls: readonly Uint8Array[]
}

export interface Knowledge {
  readonly entries: ReadonlyMap<string, AgentEntry>
  /** Entries that apply to who has these selectors and is not on the deny-list, the default identity first. */
  entriesFor(selectors: ReadonlySet<string>): readonly AgentEntry[]
  /** which kinds of selectors entries ask for, in one word */
  selectorKinds(): string
  /** the roots of this agent's own trust domain; none before it has joined */
  bundle(): X509Bundle
  /** this agent's own trust domain, whole */
  own(): Trust
  federated(): ReadonlyMap<TrustDomain, Trust>
  taints(): Taints
  policies(): PolicySet | undefined
  /** of the services that this node looks for, as the authority told */
  endpoints(): readonly Endpoint[]
  revocation(): KnownRevocation
  /** Whether that identity is on the deny-list now. */
  isDenied(id: SpiffeId): boolean
  /** the resume cursor, and the store that it is of; none while what was taken in is not settled */
  place(): { readonly cursor: bigint; readonly epoch: string }
  /** Whether there is anything to serve: heard from the authority, or from the disk. */
  isComplete(): boolean
  /** Takes a message in, whole, then tells the listeners. */
  apply(message: AuthorityMessage): void
  /** Believes these roots until the authority says more: what an agent has before it is told anything. */
  begin(bundle: X509Bundle): void
  /** Everything, as one message that `apply` takes. */
  snapshot(): AuthorityMessage
  /** Whether leaves of the authorities that are about to sign would be believed, and the roots are on the disk. */
  settled(isSettled: boolean): void
  onChange(listener: () => void): Disposable
}

const nowhere: { readonly cursor: bigint; readonly epoch: string } = { cursor: 0n, epoch: '' }

/** What an agent holds, each part as it came and as it is used. */
interface Held {
  readonly own: Trust
  readonly taints: typeof noTaints
  readonly federated: ReadonlyMap<TrustDomain, Trust>
  readonly revocation: KnownRevocation
  readonly message: Pick<
    AuthorityMessage,
    'cursor' | 'epoch' | 'bundle' | 'policies' | 'revocation' | 'federated' | 'endpoints'
  >
}

/** Throws what is wrong with the message: nothing of it is taken in then. */
function taken(before: Held, message: AuthorityMessage, domain: TrustDomain, now: number): Held {
  const { bundle, revocation, federated } = message
  const own = bundle === undefined ? before.own : trustOf(domain, bundle)
  return {
    own,
    taints: bundle === undefined ? before.taints : before.taints.next(own, bundle, now),
    federated: federated === undefined ? before.federated : federatedOf(federated.bundles),
    revocation: revocation === undefined ? before.revocation : revocationOf(revocation),
    message: {
      cursor: message.cursor,
      epoch: message.epoch,
      bundle: bundle ?? before.message.bundle,
      policies: message.policies ?? before.message.policies,
      revocation: revocation ?? before.message.revocation,
      federated: federated ?? before.message.federated,
      endpoints: message.endpoints ?? before.message.endpoints,
    },
  }
}

/** Whether a message says anything; one that does not is a heartbeat. */
function hasContent({ entries, deletedEntries, ...rest }: AuthorityMessage): boolean {
  const whole = [rest.bundle, rest.policies, rest.revocation, rest.federated, rest.endpoints]
  return entries.length + deletedEntries.length > 0 || whole.some((it) => it !== undefined)
}

function revocationOf({ denyList: message, crls }: Revocation): KnownRevocation {
  return { denyList: denyListOf(message), message, crls }
}

export function createKnowledge(trustDomain: TrustDomain, clock: Clock): Knowledge {
  const topic = createTopic<void>()
  let held: Held = {
    own: { x509: { trustDomain, authorities: [] }, jwt: [], wit: [] },
    taints: noTaints,
    federated: new Map(),
    revocation: { denyList: denyNothing, message: undefined, crls: [] },
    message: create(AuthorityMessageSchema),
  }
  let isComplete = false
  let isSettled = true

  const isDenied = (id: SpiffeId) =>
    held.revocation.denyList.againstId(id, clock.now()) !== undefined

  const entries = createKnownEntries((id) => !isDenied(id), clock)

  return {
    entries: entries.all,
    entriesFor: (selectors) => entries.matcher().matching(selectors),
    selectorKinds: () => entries.matcher().kinds,
    bundle: () => held.own.x509,
    own: () => held.own,
    federated: () => held.federated,
    taints: () => held.taints,
    policies: () => held.message.policies,
    endpoints: () => held.message.endpoints?.endpoints ?? [],
    revocation: () => held.revocation,
    isDenied,
    place() {
      const { cursor, epoch } = held.message
      return isSettled && isComplete ? { cursor, epoch } : nowhere
    },
    settled(now) {
      isSettled = now
    },
    isComplete: () => isComplete,
    apply(message) {
      held = taken(held, message, trustDomain, clock.now())
      entries.take(message)
      const isNews = !isComplete || message.snapshot || hasContent(message)
      isComplete = true
      if (!isNews) return
      entries.changed()
      topic.publish()
    },
    begin(x509) {
      held = { ...held, own: { ...held.own, x509 } }
    },
    snapshot: () =>
      create(AuthorityMessageSchema, {
        ...held.message,
        snapshot: true,
        ...entries.wire(),
      }),
    onChange: (listener) => topic.subscribe(listener),
  }
}
