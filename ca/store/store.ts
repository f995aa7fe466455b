// The store as one interface for every engine. Writes resolve once they are durable; those of one turn of
// the event loop share a commit.
import type { Serial } from '../../spiffe/certificate.ts'
import type { SpiffeId } from '../../spiffe/id.ts'
import type {
  AgentChange,
  AgentRow,
  AuthorityRow,
  DenyRuleRow,
  EntryRow,
  Event,
  FederatedBundleRow,
  Intent,
  IssuedFilter,
  IssuedRow,
  LiveCertificate,
  OverrideRow,
  RelationshipRow,
  StoredPolicies,
  TokenRecord,
  TokenRow,
  TokenUse,
} from './model.ts'

export * from './model.ts'

export interface IssuanceTable {
  /** Throws ERR_JOIN_TOKEN when the token is unknown, expired or used. */
  reserve(intent: Intent, token?: TokenUse): Promise<void>
  /** Writes the certificate and what changes with it; only then may it leave the process. */
  record(row: IssuedRow, change?: AgentChange): Promise<void>
  /** Durable before the token is signed. */
  recordToken(row: TokenRecord): Promise<void>
  /** Gives a token back whose certificate was reserved but will not be recorded. */
  release(token: Uint8Array): Promise<void>
  find(filter: { serial?: Serial; spiffeId?: SpiffeId; limit: number }): IssuedRow[]
  /** Newest first; `next`, when there is more, is the `before` of the following page. */
  list(filter: IssuedFilter): { readonly rows: IssuedRow[]; readonly next: number | undefined }
  /** All certificates of these identities that have not expired. */
  validOf(ids: ReadonlySet<SpiffeId>, now: number): IssuedRow[]
  /** One row for each holder, that is identity, entry and requester. */
  live(now: number): LiveCertificate[]
  createToken(token: TokenRow): Promise<void>
}

export interface AgentTable {
  list(): AgentRow[]
  get(id: string): AgentRow | undefined
  /** The pending certificate was seen: it becomes the one in use. */
  promote(id: SpiffeId, serial: Serial): Promise<void>
  /** False when there is no such agent. */
  ban(id: SpiffeId): Promise<boolean>
  delete(id: SpiffeId): Promise<boolean>
  setVersion(id: SpiffeId, version: string): Promise<boolean>
}

export interface EntryTable {
  list(): EntryRow[]
  get(id: string): EntryRow | undefined
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
  list(): AuthorityRow[]
  /** The cursor of the last change, 0 before the first. */
  sequence(): number
  /**
   * Writes all rows as one change; `removed` are taken out. The new sequence is returned. `override` is
   * recorded with it.
   */
  set(
    rows: readonly AuthorityRow[],
    removed: readonly string[],
    override?: OverrideRow,
  ): Promise<number>
  /** The newest first. */
  overrides(limit: number): OverrideRow[]
}

export interface FederationTable {
  bundles(): FederatedBundleRow[]
  bundle(trustDomain: string): FederatedBundleRow | undefined
  /** ERR_ALREADY_EXISTS, ERR_NOT_FOUND: `before` says what has to be there. */
  setBundle(bundle: FederatedBundleRow, before: 'absent' | 'present' | 'any'): Promise<void>
  /** ERR_NOT_FOUND; ERR_PRECONDITION when `restrict` finds entries that federate with it. */
  deleteBundle(trustDomain: string, mode: 'restrict' | 'delete' | 'dissociate'): Promise<void>
  relationships(): RelationshipRow[]
  relationship(trustDomain: string): RelationshipRow | undefined
  /** `bundle`, when there is one, is written in the same transaction. */
  setRelationship(
    relationship: RelationshipRow,
    before: 'absent' | 'present',
    bundle?: FederatedBundleRow,
  ): Promise<void>
  deleteRelationship(trustDomain: string): Promise<boolean>
}

export interface PolicyTable {
  current(): StoredPolicies
  /** `at` in milliseconds since the epoch. */
  set(files: StoredPolicies['files'], at: number): Promise<StoredPolicies>
}

export interface DenyTable {
  list(): DenyRuleRow[]
  add(rule: DenyRuleRow): Promise<void>
  /** False when there is no such rule. */
  remove(id: string): Promise<boolean>
}

export interface EventTable {
  /** Events after `cursor`, oldest first. */
  after(cursor: number, limit: number): Event[]
  last(): number
  /** Called after each commit with the events that it holds. */
  subscribe(listener: (events: readonly Event[]) => void): Disposable
}

export interface Store extends Disposable {
  /** Names this store: a restored or new one has another epoch, so cursors are never mixed up. */
  readonly epoch: string
  readonly issuance: IssuanceTable
  readonly agents: AgentTable
  readonly entries: EntryTable
  readonly authorities: AuthorityTable
  readonly policies: PolicyTable
  readonly federation: FederationTable
  readonly denyRules: DenyTable
  readonly events: EventTable
  /** A consistent copy of everything, as a file of its own, while writes go on. Throws ERR_STORE. */
  copyTo(path: string): Promise<void>
  /** Writes a little, durably. Throws ERR_STORE when that is not possible. */
  probe(): Promise<void>
  /** Why the last write failed; undefined when it did not. */
  trouble(): string | undefined
}
