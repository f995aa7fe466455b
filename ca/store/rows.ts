// Between rows of the database and our types: what was written by us is still parsed, never believed.
import { z } from 'zod'
import { type Serial, serialFromHex, serialOf } from '../../spiffe/certificate.ts'
import { isSpiffeId, parseTrustDomain, type SpiffeId } from '../../spiffe/id.ts'
import type {
  AcknowledgementRow,
  AgentRow,
  AuthorityRow,
  CrlRow,
  DenyRuleRow,
  EntryRow,
  Event,
  FederatedBundleRow,
  IssuedRow,
  LiveCertificate,
  OverrideRow,
  PolicyVersionRow,
  RelationshipRow,
  ReplicaRow,
  ServerSvidRow,
} from './model.ts'
import type { EndpointsRow, EnforcementRow } from './said.ts'

const spiffeId = z.custom<SpiffeId>((value) => typeof value === 'string' && isSpiffeId(value))
const serial = z.custom<Serial | ''>(
  (value) => typeof value === 'string' && /^([0-9a-f]{2})*$/.test(value),
)
const someSerial = z.custom<Serial>(
  (value) => typeof value === 'string' && serialFromHex(value) === value,
)
const flag = z.union([z.literal(0), z.literal(1)]).transform((value) => value === 1)
// a driver's Buffer is a Uint8Array with other manners
const bytes = z
  .instanceof(Uint8Array)
  .transform((it): Uint8Array => new Uint8Array(it.buffer, it.byteOffset, it.byteLength))
const selectors = z.array(z.strictObject({ type: z.string(), value: z.string() }))

function json<T extends z.ZodType>(schema: T) {
  return z
    .string()
    .transform((text): unknown => JSON.parse(text))
    .pipe(schema)
}

export const agentRow: z.ZodType<AgentRow> = z
  .object({
    id: spiffeId,
    attestation_type: z.string(),
    serial,
    pending_serial: serial,
    not_after: z.number(),
    banned: flag,
    can_reattest: flag,
    selectors: json(selectors),
    version: z.string(),
    attested_at: z.number(),
  })
  .transform((row) => ({
    id: row.id,
    attestationType: row.attestation_type,
    serial: row.serial,
    pendingSerial: row.pending_serial,
    notAfter: row.not_after,
    banned: row.banned,
    canReattest: row.can_reattest,
    selectors: row.selectors,
    version: row.version,
    attestedAt: row.attested_at,
  }))

export const issuedRow: z.ZodType<IssuedRow> = z
  .object({
    serial: bytes.transform((value): Serial => serialOf(value)),
    spiffe_id: spiffeId,
    authority_id: z.string(),
    requester: z.string(),
    entry_id: z.string(),
    not_before: z.number(),
    not_after: z.number(),
    certificate: bytes,
  })
  .transform((row) => ({
    serial: row.serial,
    spiffeId: row.spiffe_id,
    authorityId: row.authority_id,
    requester: row.requester,
    entryId: row.entry_id,
    notBefore: row.not_before,
    notAfter: row.not_after,
    certificate: row.certificate,
  }))

export const authorityRow: z.ZodType<AuthorityRow> = z
  .object({
    kind: z.enum(['x509', 'jwt', 'wit']),
    id: z.string(),
    state: z.enum(['prepared', 'active', 'old']),
    tainted_at: z.number(),
    material: bytes,
    not_before: z.number(),
    not_after: z.number(),
    prepared_at: z.number(),
    replica: z.string(),
    sealed_key: bytes,
    canary: bytes,
  })
  .transform(({ tainted_at, not_before, not_after, prepared_at, sealed_key, ...row }) => ({
    ...row,
    sealedKey: sealed_key,
    taintedAt: tainted_at,
    notBefore: not_before,
    notAfter: not_after,
    preparedAt: prepared_at,
  }))

export const eventRow: z.ZodType<Event> = z.object({
  cursor: z.number(),
  kind: z.enum([
    'entry',
    'bundle',
    'policies',
    'agent',
    'federation',
    'deny',
    'replica',
    'endpoints',
  ]),
  key: z.string(),
})

export const acknowledgementRow: z.ZodType<AcknowledgementRow> = z
  .object({
    agent_id: spiffeId,
    replica: z.string(),
    cursor: z.number(),
    heard_at: z.number(),
    patience: z.number(),
  })
  .transform(({ agent_id, heard_at, ...row }) => ({
    ...row,
    agentId: agent_id,
    heardAt: heard_at,
  }))

const enforcementPoint = z.strictObject({
  spiffeId: z.string(),
  pid: z.number(),
  version: z.number(),
  refusal: z.string(),
})

export const enforcementRow: z.ZodType<EnforcementRow> = z
  .object({ agent_id: spiffeId, replica: z.string(), points: json(z.array(enforcementPoint)) })
  .transform(({ agent_id, ...row }) => ({ ...row, agentId: agent_id }))

const serviceEndpoint = z.strictObject({
  service: z.string(),
  spiffeId,
  address: z.string(),
})

export const endpointsRow: z.ZodType<EndpointsRow> = z
  .object({ agent_id: spiffeId, endpoints: json(z.array(serviceEndpoint)) })
  .transform(({ agent_id, endpoints }) => ({ agentId: agent_id, endpoints }))

export const replicaRow: z.ZodType<ReplicaRow> = z
  .object({ id: z.string(), alive_at: z.number() })
  .transform(({ id, alive_at }) => ({ id, aliveAt: alive_at }))

export const crlRow: z.ZodType<CrlRow> = z
  .object({ authority_id: z.string(), crl: bytes })
  .transform(({ authority_id, crl }) => ({ authorityId: authority_id, crl }))

export const serverSvidRow: z.ZodType<ServerSvidRow> = z.object({
  replica: z.string(),
  csr: bytes,
})

export const overrideRow: z.ZodType<OverrideRow> = z
  .object({
    at: z.number(),
    caller: z.string(),
    action: z.enum(['activate', 'revoke']),
    authority_id: z.string(),
    reason: z.string(),
  })
  .transform(({ authority_id, ...row }) => ({ ...row, authorityId: authority_id }))

export const liveRow: z.ZodType<LiveCertificate> = z
  .object({ authority_id: z.string(), is_workload: flag, ends: z.number() })
  .transform((row) => ({
    authorityId: row.authority_id,
    isWorkload: row.is_workload,
    notAfter: row.ends,
  }))

const denyRule: z.ZodType<DenyRuleRow> = z.strictObject({
  id: z.string(),
  target: z.discriminatedUnion('kind', [
    z.strictObject({ kind: z.literal('id'), id: spiffeId }),
    z.strictObject({ kind: z.literal('serial'), serial: someSerial }),
    z.strictObject({ kind: z.literal('authority'), authorityId: z.string() }),
  ]),
  reason: z.string(),
  createdAt: z.number(),
  expiresAt: z.number(),
  issuedTo: spiffeId.optional(),
  isRoot: z.boolean().optional(),
})

export const denyRuleRow = z.object({ body: json(denyRule) }).transform((row) => row.body)

export const policiesRow = z.object({
  version: z.number(),
  files: json(z.array(z.strictObject({ name: z.string(), text: z.string() }))),
})

export const policyVersionRow: z.ZodType<PolicyVersionRow> = z.object({
  version: z.number(),
  at: z.number(),
  caller: z.string(),
  message: z.string(),
})

const trustDomain = z.string().transform((text) => parseTrustDomain(text))
const base64 = z.string().transform((text) => new Uint8Array(Buffer.from(text, 'base64')))
const tokenKeys = z.array(
  z.strictObject({
    keyId: z.string(),
    publicKey: base64,
    expiresAt: z.number(),
    tainted: z.boolean(),
  }),
)

const federatedBundle: z.ZodType<FederatedBundleRow> = z.strictObject({
  trustDomain,
  x509: z.array(z.strictObject({ der: base64, tainted: z.boolean() })),
  jwt: tokenKeys,
  wit: tokenKeys,
  refreshHint: z.number(),
  sequence: z.string(),
})

export const federatedBundleRow = z
  .object({ body: json(federatedBundle) })
  .transform((row) => row.body)

const relationship: z.ZodType<RelationshipRow> = z.strictObject({
  trustDomain,
  url: z.string(),
  endpointId: spiffeId.optional(),
})

const base64List = json(z.array(base64))

/** A chain of certificates; empty before it is there. */
export const chainRow = z
  .object({ chain: z.string() })
  .transform(({ chain }) => (chain === '' ? undefined : base64List.parse(chain)))

export const relationshipRow = z.object({ body: json(relationship) }).transform((row) => row.body)

/** What makes an entry the same as another one: its ID, parent and set of selectors. */
export function identityOf(entry: EntryRow): string {
  const set = new Set(entry.selectors.map(({ type, value }) => `${type}:${value}`))
  return JSON.stringify([entry.spiffeId, entry.parentId, [...set].sort()])
}
