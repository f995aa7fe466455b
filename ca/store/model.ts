// What the authority remembers: the rows of its store, whatever engine keeps them.
import type { Labels } from '../../policies/language/policy.ts'
import type { Serial } from '../../spiffe/certificate.ts'
import type { DenyRule } from '../../spiffe/deny-list.ts'
import type { SpiffeId, TrustDomain } from '../../spiffe/id.ts'

/** What is about to be signed, durable before the key is touched. */
export interface Intent {
  readonly serial: Serial
  readonly spiffeId: SpiffeId
  readonly authorityId: string
  /** milliseconds since the epoch */
  readonly at: number
}

/** Uses up a join token together with the reservation: of a hundred attempts exactly one succeeds. */
export interface TokenUse {
  readonly hash: Uint8Array
  readonly now: number
}

/** Says as little to those who guess as to those who come too late. */
export const unusableToken = 'join token does not exist, has expired or has already been used'

export interface IssuedRow {
  readonly serial: Serial
  readonly spiffeId: SpiffeId
  readonly authorityId: string
  /** who asked: an agent's ID, `local`, an administrator's or the authority's own ID, or `istio:…` */
  readonly requester: string
  /** the entry that granted it; empty when none did */
  readonly entryId: string
  readonly notBefore: number
  readonly notAfter: number
  readonly certificate: Uint8Array
}

/** A JWT- or WIT-SVID that is about to be signed. */
export interface TokenRecord {
  /** 128 random bits as hex; the `jti` where there is one */
  readonly id: string
  readonly kind: 'jwt' | 'wit'
  readonly spiffeId: SpiffeId
  /** the `kid` of the key that signs it */
  readonly authorityId: string
  readonly requester: string
  readonly entryId: string
  readonly audience: readonly string[]
  /** milliseconds since the epoch */
  readonly issuedAt: number
  readonly expiresAt: number
}

export interface SelectorRow {
  readonly type: string
  readonly value: string
}

export interface AgentRow {
  readonly id: SpiffeId
  readonly attestationType: string
  /** of the certificate in use; empty when banned */
  readonly serial: Serial | ''
  /** of a renewed certificate that was not seen yet; the one in use stays valid until then */
  readonly pendingSerial: Serial | ''
  readonly notAfter: number
  readonly banned: boolean
  readonly canReattest: boolean
  readonly selectors: readonly SelectorRow[]
  readonly version: string
  readonly attestedAt: number
}

/** What changes about an agent together with the record of its certificate. */
export type AgentChange =
  | { readonly kind: 'attested'; readonly agent: AgentRow; readonly token: Uint8Array | undefined }
  | {
      readonly kind: 'renewed'
      readonly id: SpiffeId
      readonly serial: Serial
      readonly notAfter: number
    }

export interface EntryRow {
  readonly id: string
  readonly spiffeId: SpiffeId
  readonly parentId: SpiffeId
  readonly selectors: readonly SelectorRow[]
  /** seconds, 0 for the default */
  readonly x509SvidTtl: number
  readonly jwtSvidTtl: number
  readonly federatesWith: readonly string[]
  readonly admin: boolean
  readonly downstream: boolean
  /** seconds since the epoch, 0 for never */
  readonly expiresAt: number
  readonly dnsNames: readonly string[]
  readonly storeSvid: boolean
  readonly hint: string
  readonly disablePrefetch: boolean
  readonly includeJti: boolean
  /** of the workloads; they change no certificate, and so not the revision */
  readonly labels: Labels
  readonly revision: number
  /** seconds since the epoch */
  readonly createdAt: number
}

/** One line of the deny-list. */
export interface DenyRuleRow extends DenyRule {
  /** milliseconds since the epoch */
  readonly createdAt: number
  /** of a serial: whom the certificate was issued to */
  readonly issuedTo?: SpiffeId | undefined
  /** of an authority: whether it is a root, not one below it */
  readonly isRoot?: boolean | undefined
}

/** The newest list of an X.509 authority. */
export interface CrlRow {
  readonly authorityId: string
  /** DER */
  readonly crl: Uint8Array
}

export type AuthorityKind = 'x509' | 'jwt' | 'wit'
export type AuthorityState = 'prepared' | 'active' | 'old'

export interface AuthorityRow {
  readonly kind: AuthorityKind
  /** X.509: lower-case hex of the subject key identifier; JWT and WIT: the `kid` */
  readonly id: string
  readonly state: AuthorityState
  /** milliseconds since the epoch, 0 for never */
  readonly taintedAt: number
  /** DER: a certificate, or a SubjectPublicKeyInfo */
  readonly material: Uint8Array
  /** milliseconds since the epoch */
  readonly notBefore: number
  readonly notAfter: number
  readonly preparedAt: number
  /** who has its key: a replica, or somebody else, in brackets; empty when all have */
  readonly replica: string
  /** empty when it is kept elsewhere */
  readonly sealedKey: Uint8Array
  /** X.509: a leaf to rehearse with, whose key is gone, DER; else empty */
  readonly canary: Uint8Array
}

export interface AuthorityList {
  readonly rows: readonly AuthorityRow[]
  /** the cursor of the last change of this kind, 0 before the first */
  readonly sequence: number
}

export interface AuthorityChange {
  /** a sequence */
  readonly basedOn: number
  readonly rows: readonly AuthorityRow[]
  /** ids */
  readonly removed: readonly string[]
  /** recorded with it */
  readonly override?: OverrideRow | undefined
}

/** What a connected agent has put to use. */
export interface AcknowledgementRow {
  readonly agentId: SpiffeId
  /** who hears it */
  readonly replica: string
  readonly cursor: number
  /** milliseconds since the epoch */
  readonly heardAt: number
  /** milliseconds of silence after which it counts as away */
  readonly patience: number
}

export interface ReplicaRow {
  readonly id: string
  /** milliseconds since the epoch, by its own clock */
  readonly aliveAt: number
}

/** A replica that may not sign yet, and what it wants a certificate for. */
export interface ServerSvidRow {
  readonly replica: string
  readonly csr: Uint8Array
}

export interface TokenRow {
  readonly hash: Uint8Array
  readonly expiresAt: number
}

export interface StoredPolicies {
  readonly version: number
  readonly files: readonly { readonly name: string; readonly text: string }[]
}

/** Who put a policy set into force, and why. */
export interface PolicyVersionRow {
  readonly version: number
  /** milliseconds since the epoch */
  readonly at: number
  /** `local`, an administrator's ID, or `folder`; empty for those of an older program */
  readonly caller: string
  readonly message: string
}

/** A public key that signs tokens of a trust domain. */
export interface TokenKeyRow {
  readonly keyId: string
  /** SubjectPublicKeyInfo, DER */
  readonly publicKey: Uint8Array
  /** seconds since the epoch, 0 for never */
  readonly expiresAt: number
  readonly tainted: boolean
}

/** What another trust domain trusts, as it was given to us. */
export interface FederatedBundleRow {
  readonly trustDomain: TrustDomain
  /** DER, one certificate each */
  readonly x509: readonly { readonly der: Uint8Array; readonly tainted: boolean }[]
  readonly jwt: readonly TokenKeyRow[]
  readonly wit: readonly TokenKeyRow[]
  /** seconds, 0 for none */
  readonly refreshHint: number
  /** decimal: 64 bits do not fit a number */
  readonly sequence: string
}

/** Where the bundle of another trust domain is fetched from. */
export interface RelationshipRow {
  readonly trustDomain: TrustDomain
  readonly url: string
  /** who serves it; absent for Web PKI */
  readonly endpointId?: SpiffeId | undefined
}

/** key of the `deny` events that speak of CRLs, not of rules */
export const listsChanged = 'crls'

/** One line of the event table: what changed, never how. */
export interface Event {
  readonly cursor: number
  readonly kind:
    | 'entry'
    | 'bundle'
    | 'policies'
    | 'agent'
    | 'federation'
    | 'deny'
    | 'replica'
    | 'endpoints'
  readonly key: string
}

/** The longest-lived certificate of one holder that has not expired. */
export interface LiveCertificate {
  readonly authorityId: string
  /** granted by an entry, or to a service account: its end is a workload's */
  readonly isWorkload: boolean
  /** milliseconds since the epoch */
  readonly notAfter: number
}

export interface IssuedFilter {
  readonly spiffeId?: SpiffeId
  readonly serial?: Serial
  /** milliseconds since the epoch: valid from then or later */
  readonly since: number
  readonly before?: number
  readonly limit: number
}

/** An operator went over the head of agents that had not followed. */
export interface OverrideRow {
  /** milliseconds since the epoch */
  readonly at: number
  readonly caller: string
  readonly action: 'activate' | 'revoke'
  readonly authorityId: string
  readonly reason: string
}
