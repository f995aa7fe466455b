// The store as one interface for every engine. Writes resolve once they are durable; those of one turn of
// the event loop share a commit.
import type { Serial } from '../../spiffe/certificate.ts'
import type { SpiffeId } from '../../spiffe/id.ts'
import type {
  AcknowledgementRow,
  AgentChange,
  AgentRow,
  AuthorityChange,
  AuthorityKind,
  AuthorityList,
  CrlRow,
  DenyRuleRow,
  EntryRow,
  Event,
  FederatedBundleRow,
  Intent,
  IssuedFilter,
  IssuedRow,
  LiveCertificate,
  OverrideRow,
  PolicyVersionRow,
  RelationshipRow,
  ReplicaRow,
  ServerSvidRow,
  StoredPolicies,
  TokenRecord,
  TokenRow,
  TokenUse,
} from './model.ts'
import type { EndpointsRow, EnforcementRow } from './said.ts'

export interface IssuanceTable {
  /** Throws ERR_JOIN_TOKEN when the token is unknown, expired or used. */
  reserve(intent: Intent, token?: TokenUse): Promise<void>
  /** Writes the certificate and what changes with it; only then may it leave the process. */
  record(row: IssuedRow, change?: AgentChange): Promise<void>
  /** Durable before the token is signed. */
  recordToken(row: TokenRecord): Promise<void>
  /** Gives a token back whose certificate was reserved but will not be recorded. */
  release(token: Uint8Array): Promise<void>
  find(serial: Serial): Promise<IssuedRow | undefined>
  /** Newest first; `next`, when there is more, is the `before` of the following page. */
  list(
    filter: IssuedFilter,
  ): Promise<{ readonly rows: IssuedRow[]; readonly next: number | undefined }>
  /** All certificates of these identities that have not expired. */
  validOf(ids: ReadonlySet<SpiffeId>, now: number): Promise<IssuedRow[]>
  /** One row for each holder, that is identity, entry and requester. */
  live(now: number): Promise<LiveCertificate[]>
  createToken(token: TokenRow): Promise<void>
}

export interface AgentTable {
  list(): Promise<AgentRow[]>
  get(id: string): Promise<AgentRow | undefined>
  /** The pending certificate was seen: it becomes the one in use. */
  promote(id: SpiffeId, serial: Serial): Promise<void>
  /** False when there is no such agent. */
  ban(id: SpiffeId): Promise<boolean>
  delete(id: SpiffeId): Promise<boolean>
  setVersion(id: SpiffeId, version: string): Promise<boolean>
}

export interface EntryTable {
  /** In no order. */
  all(): AsyncIterable<EntryRow>
  /** Those of these that exist. */
  some(ids: readonly string[]): Promise<EntryRow[]>
  /** ERR_ALREADY_EXISTS for a second entry of the same ID, parent and selectors, or of the same id. */
  create(entry: EntryRow): Promise<void>
  /**
   * Replaces the entry by what `edit` makes of it, inside the transaction: of two edits at once neither
   * is lost. ERR_NOT_FOUND, and whatever `edit` throws.
   */
  update(id: string, edit: (known: EntryRow) => EntryRow): Promise<EntryRow>
  delete(id: string): Promise<boolean>
}

export interface AuthorityTable {
  /** Those of a kind, in the order in which they were prepared, as one reading. */
  list(kind: AuthorityKind): Promise<AuthorityList>
  /**
   * Writes rows and takes others out, as one change. The new sequence is returned. ERR_CONFLICT when
   * somebody changed this kind after the list that it is `basedOn`.
   */
  set(kind: AuthorityKind, change: AuthorityChange): Promise<number>
  /** The newest first. */
  overrides(limit: number): Promise<OverrideRow[]>
}

export interface FederationTable {
  bundles(): Promise<FederatedBundleRow[]>
  bundle(trustDomain: string): Promise<FederatedBundleRow | undefined>
  /** ERR_ALREADY_EXISTS, ERR_NOT_FOUND: `before` says what has to be there. */
  setBundle(bundle: FederatedBundleRow, before: 'absent' | 'present' | 'any'): Promise<void>
  /** ERR_NOT_FOUND; ERR_PRECONDITION when `restrict` finds entries that federate with it. */
  deleteBundle(trustDomain: string, mode: 'restrict' | 'delete' | 'dissociate'): Promise<void>
  relationships(): Promise<RelationshipRow[]>
  relationship(trustDomain: string): Promise<RelationshipRow | undefined>
  /** `bundle`, when there is one, is written in the same transaction. */
  setRelationship(
    relationship: RelationshipRow,
    before: 'absent' | 'present',
    bundle?: FederatedBundleRow,
  ): Promise<void>
  deleteRelationship(trustDomain: string): Promise<boolean>
}

export interface PolicyChange extends Omit<PolicyVersionRow, 'version'> {
  readonly basedOn?: number
}

export interface PolicyTable {
  current(): Promise<StoredPolicies>
  /** One that is kept still. */
  find(version: number): Promise<StoredPolicies | undefined>
  /** The newest first. */
  versions(): Promise<PolicyVersionRow[]>
  /** ERR_CONFLICT when another version is in force than the one that it is `basedOn`. */
  set(files: StoredPolicies['files'], change: PolicyChange): Promise<StoredPolicies>
}

export interface DenyTable {
  list(): Promise<DenyRuleRow[]>
  add(rule: DenyRuleRow): Promise<void>
  /** False when there is no such rule. */
  remove(id: string): Promise<boolean>
  /** What the replicas have signed. */
  crls(): Promise<CrlRow[]>
  /** Each takes the place of the one before. */
  putCrls(rows: readonly CrlRow[]): Promise<void>
}

export type EventListener = (events: readonly Event[]) => Promise<void>

export interface EventTable {
  /** Events after `cursor`, oldest first. */
  after(cursor: number, limit: number): Promise<Event[]>
  /** The cursor up to which the listeners know everything. */
  last(): number
  /**
   * Called after commits, of other replicas too, with events in the order of their cursors; called again
   * with the same ones when it has thrown.
   */
  subscribe(listener: EventListener): Disposable
}

export interface AcknowledgementTable {
  list(): Promise<AcknowledgementRow[]>
  put(rows: readonly AcknowledgementRow[]): Promise<void>
  /** Unless another replica hears them by now. */
  remove(agents: readonly SpiffeId[]): Promise<void>
}

export interface EnforcementTable {
  list(): Promise<EnforcementRow[]>
  /** Of agents that this replica hears. */
  put(rows: readonly EnforcementRow[]): Promise<void>
  /** Of agents that are away; what another replica hears stays. */
  remove(agents: readonly SpiffeId[]): Promise<void>
}

export interface EndpointTable {
  list(): Promise<EndpointsRow[]>
  get(agentId: SpiffeId): Promise<EndpointsRow | undefined>
  /** Each takes the place of the one before; one without endpoints is gone. */
  put(row: EndpointsRow): Promise<void>
}

export interface ReplicaTable {
  list(): Promise<ReplicaRow[]>
  /** This one is alive; `at` in milliseconds since the epoch. */
  alive(at: number): Promise<void>
  /** Takes out what a replica that is gone for good had: tokens in use, agents, its name. */
  forget(id: string): Promise<void>
  /** Asks the others for a certificate of this replica's own. */
  askForSvid(csr: Uint8Array): Promise<void>
  /** What is asked for and not answered. */
  asked(): Promise<ServerSvidRow[]>
  answer(replica: string, csr: Uint8Array, chain: readonly Uint8Array[]): Promise<void>
  /** The answer to this replica; undefined while there is none. */
  answered(): Promise<readonly Uint8Array[] | undefined>
}

export interface Store extends AsyncDisposable {
  /** Names this store: a restored or new one has another epoch, so cursors are never mixed up. */
  readonly epoch: string
  /** of those on one database, the authority that this program is */
  readonly replica: string
  /** whether there may be others */
  readonly isShared: boolean
  readonly issuance: IssuanceTable
  readonly agents: AgentTable
  readonly entries: EntryTable
  readonly authorities: AuthorityTable
  readonly policies: PolicyTable
  readonly federation: FederationTable
  readonly denyRules: DenyTable
  readonly acknowledgements: AcknowledgementTable
  readonly enforcement: EnforcementTable
  readonly endpoints: EndpointTable
  readonly replicas: ReplicaTable
  readonly events: EventTable
  /** A consistent copy of everything, as a file of its own, while writes go on. Throws ERR_STORE. */
  copyTo(path: string): Promise<void>
  /** Writes a little, durably. Throws ERR_STORE when that is not possible. */
  probe(): Promise<void>
  /** Why the last write failed, or what was written is not taken in; undefined when all is well. */
  trouble(): string | undefined
}
