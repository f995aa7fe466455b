// Between SPIRE's messages and our rows. What comes in is checked field by field; what is wrong is named.
import type { MessageInitShape } from '@bufbuild/protobuf'
import type { EntryLabelsSchema } from '../proto/gen/castellan/entry/v1/labels_pb.js'
import type { Agent, AgentMask, AgentSchema } from '../proto/gen/spire/api/types/agent_pb.js'
import type { BundleSchema } from '../proto/gen/spire/api/types/bundle_pb.js'
import type { EntryMask, EntrySchema } from '../proto/gen/spire/api/types/entry_pb.js'
import type { SPIFFEID } from '../proto/gen/spire/api/types/spiffeid_pb.js'
import type { X509SVIDSchema } from '../proto/gen/spire/api/types/x509svid_pb.js'
import { explain, type FieldProblem, IdentityError } from '../spiffe/errors.ts'
import {
  parseSpiffeId,
  parseTrustDomain,
  pathOf,
  type SpiffeId,
  type TrustDomain,
  trustDomainOf,
} from '../spiffe/id.ts'
import type { Authorities } from './authorities/authorities.ts'
import type { Slot } from './authorities/slot.ts'
import type { Delivered } from './issue.ts'
import type { AgentRow, EntryRow } from './store/model.ts'
import type { TokenSvid } from './token-svids.ts'

const longestReason = 200

export function badRequest(fields: readonly FieldProblem[]): never {
  const [first] = fields
  const more = fields.length > 1 ? ` (and ${fields.length - 1} more)` : ''
  throw new IdentityError('ERR_BAD_REQUEST', `${first?.field}: ${first?.problem}${more}`, {
    fields,
  })
}

/** Whole seconds of a time in milliseconds, as SPIRE's messages carry times. */
export function secondsOf(at: number): bigint {
  return BigInt(Math.floor(at / 1000))
}

/** What an operator writes for others to read. Throws ERR_BAD_REQUEST naming `field`. */
export function printableReason(reason: string, field: string): string {
  if (reason.length <= longestReason && !/\p{C}/u.test(reason)) return reason
  const problem = `is not at most ${longestReason} printable characters`
  return badRequest([{ field, problem }])
}

export function idToWire(id: SpiffeId): { trustDomain: string; path: string } {
  return { trustDomain: trustDomainOf(id), path: pathOf(id) }
}

/** The ID of a message. Throws ERR_BAD_REQUEST naming `field`. */
export function idFromWire(message: SPIFFEID | undefined, field: string): SpiffeId {
  if (message === undefined) return badRequest([{ field, problem: 'is missing' }])
  // else a path could go on with the trust domain's name
  if (message.path !== '' && !message.path.startsWith('/'))
    return badRequest([{ field, problem: 'has a path that does not start with a slash' }])
  try {
    return parseSpiffeId(`spiffe://${parseTrustDomain(message.trustDomain)}${message.path}`)
  } catch (error) {
    return badRequest([{ field, problem: explain(error) }])
  }
}

/** An ID of our own trust domain; `/spire/…` only where `reserved` says so. */
export function ownIdFromWire(
  message: SPIFFEID | undefined,
  field: string,
  trustDomain: TrustDomain,
  { reserved }: { reserved: boolean },
): SpiffeId {
  const id = idFromWire(message, field)
  const path = pathOf(id)
  if (trustDomainOf(id) !== trustDomain) {
    return badRequest([{ field, problem: `${id} is not of trust domain ${trustDomain}` }])
  }
  if (path === '') return badRequest([{ field, problem: `${id} has no path` }])
  if (!reserved && (path === '/spire' || path.startsWith('/spire/'))) {
    return badRequest([{ field, problem: `${id} lies under the reserved path /spire` }])
  }
  return id
}

type EntryInit = MessageInitShape<typeof EntrySchema>

export function entryToWire(entry: EntryRow, mask?: EntryMask): EntryInit {
  const whole: EntryInit & object = {
    spiffeId: idToWire(entry.spiffeId),
    parentId: idToWire(entry.parentId),
    selectors: entry.selectors.map(({ type, value }) => ({ type, value })),
    x509SvidTtl: entry.x509SvidTtl,
    federatesWith: [...entry.federatesWith],
    admin: entry.admin,
    downstream: entry.downstream,
    expiresAt: BigInt(entry.expiresAt),
    dnsNames: [...entry.dnsNames],
    revisionNumber: BigInt(entry.revision),
    storeSvid: entry.storeSvid,
    jwtSvidTtl: entry.jwtSvidTtl,
    hint: entry.hint,
    createdAt: BigInt(entry.createdAt),
    additionalAttributes: {
      disableX509SvidPrefetch: entry.disablePrefetch,
      jwtSvidIncludeJti: entry.includeJti,
    },
  }
  return { ...masked(whole, mask), id: entry.id }
}

export const hasLabels = ({ labels }: EntryRow): boolean => Object.keys(labels).length > 0

export function labelsToWire({
  id,
  labels,
}: EntryRow): MessageInitShape<typeof EntryLabelsSchema> & object {
  return { entryId: id, labels: { ...labels } }
}

/** Only the fields whose mask is true; everything without a mask. */
function masked<T extends object>(whole: T, mask: EntryMask | AgentMask | undefined): Partial<T> {
  if (mask === undefined) return whole
  const wanted = new Set(
    Object.entries(mask).flatMap(([name, value]) => (value === true ? [name] : [])),
  )
  const kept: Partial<T> = { ...whole }
  for (const name of Object.keys(whole)) if (!wanted.has(name)) Reflect.deleteProperty(kept, name)
  return kept
}

export function agentToWire(
  agent: AgentRow,
  mask?: AgentMask,
): MessageInitShape<typeof AgentSchema> {
  const whole: Partial<Record<keyof Agent, unknown>> & MessageInitShape<typeof AgentSchema> = {
    attestationType: agent.attestationType,
    x509svidSerialNumber: agent.serial,
    x509svidExpiresAt: secondsOf(agent.notAfter),
    selectors: agent.selectors.map(({ type, value }) => ({ type, value })),
    banned: agent.banned,
    canReattest: agent.canReattest,
    agentVersion: agent.version,
  }
  return { ...masked(whole, mask), id: idToWire(agent.id) }
}

export function svidToWire(svid: Delivered, hint = ''): MessageInitShape<typeof X509SVIDSchema> {
  return {
    certChain: [...svid.chain],
    id: idToWire(svid.spiffeId),
    expiresAt: BigInt(svid.notAfter / 1000),
    hint,
  }
}

/** A JWT-SVID or a WIT-SVID: the two messages have the same shape. */
export function tokenToWire(svid: TokenSvid) {
  return {
    token: svid.token,
    id: idToWire(svid.spiffeId),
    expiresAt: BigInt(svid.expiresAt / 1000),
    issuedAt: BigInt(svid.issuedAt / 1000),
    hint: svid.hint,
  }
}

export const tokenKeyToWire = ({ id, material, notAfter, isTainted }: Slot) => ({
  keyId: id,
  publicKey: material,
  expiresAt: secondsOf(notAfter),
  tainted: isTainted,
})

export function bundleToWire(
  trustDomain: TrustDomain,
  authorities: Authorities,
): MessageInitShape<typeof BundleSchema> & object {
  return {
    trustDomain,
    x509Authorities: authorities.all().map((it) => ({ asn1: it.material, tainted: it.isTainted })),
    jwtAuthorities: authorities.jwt.all().map(tokenKeyToWire),
    witAuthorities: authorities.wit.all().map(tokenKeyToWire),
    sequenceNumber: BigInt(authorities.sequence),
  }
}
