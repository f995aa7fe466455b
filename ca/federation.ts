// Bundles and relationships of other trust domains, between SPIRE's messages and our rows.
import { createPublicKey } from 'node:crypto'
import type { MessageInitShape } from '@bufbuild/protobuf'
import type {
  Bundle,
  BundleMask,
  BundleSchema,
  JWTKey,
  WITKey,
} from '../proto/gen/spire/api/types/bundle_pb.js'
import type {
  FederationRelationship,
  FederationRelationshipMask,
  FederationRelationshipSchema,
} from '../proto/gen/spire/api/types/federationrelationship_pb.js'
import { parseCertificate } from '../spiffe/certificate.ts'
import { explain } from '../spiffe/errors.ts'
import { parseSpiffeId, parseTrustDomain, type SpiffeId, type TrustDomain } from '../spiffe/id.ts'
import type { FederatedBundleRow, RelationshipRow, TokenKeyRow } from './store/model.ts'
import { badRequest } from './wire.ts'

const limits = { authorities: 64, url: 2048 } as const

type BundleInit = MessageInitShape<typeof BundleSchema> & object

/** A foreign trust domain, with or without scheme. Throws ERR_BAD_REQUEST naming `field`. */
export function foreignFromWire(name: string, field: string, own: TrustDomain): TrustDomain {
  const parsed = attempt(field, () => parseTrustDomain(name))
  return parsed === own
    ? badRequest([{ field, problem: `${name} is our own trust domain` }])
    : parsed
}

function attempt<T>(field: string, parse: () => T): T {
  try {
    return parse()
  } catch (error) {
    return badRequest([{ field, problem: explain(error) }])
  }
}

export function authorityFromWire(der: Uint8Array, field: string): Uint8Array {
  const { isCa } = attempt(field, () => parseCertificate(der))
  return isCa ? der : badRequest([{ field, problem: 'is no CA certificate' }])
}

export function tokenKeyFromWire(
  { keyId, publicKey, expiresAt, tainted }: JWTKey | WITKey,
  field: string,
) {
  if (keyId === '' || keyId.length > 255)
    badRequest([{ field: `${field}.key_id`, problem: 'is not 1 to 255 characters' }])
  attempt(`${field}.public_key`, () =>
    createPublicKey({ key: Buffer.from(publicKey), format: 'der', type: 'spki' }),
  )
  const row: TokenKeyRow = { keyId, publicKey, expiresAt: Number(expiresAt), tainted }
  return row
}

function bounded<T>(items: readonly T[], field: string): readonly T[] {
  if (items.length > limits.authorities)
    badRequest([{ field, problem: `more than ${limits.authorities} keys` }])
  return items
}

/** A whole bundle of another trust domain. Throws ERR_BAD_REQUEST naming the field below `at`. */
export function bundleFromWire(message: Bundle, own: TrustDomain, at: string): FederatedBundleRow {
  const list = <T, R>(items: readonly T[], name: string, read: (item: T, field: string) => R) =>
    bounded(items, `${at}.${name}`).map((it, i) => read(it, `${at}.${name}[${i}]`))
  if (message.refreshHint < 0n)
    badRequest([{ field: `${at}.refresh_hint`, problem: 'is negative' }])
  return {
    trustDomain: foreignFromWire(message.trustDomain, `${at}.trust_domain`, own),
    x509: list(message.x509Authorities, 'x509_authorities', ({ asn1, tainted }, field) => ({
      der: authorityFromWire(asn1, `${field}.asn1`),
      tainted,
    })),
    jwt: list(message.jwtAuthorities, 'jwt_authorities', tokenKeyFromWire),
    wit: list(message.witAuthorities, 'wit_authorities', tokenKeyFromWire),
    refreshHint: Number(message.refreshHint),
    sequence: String(message.sequenceNumber),
  }
}

const keyToWire = ({ keyId, publicKey, expiresAt, tainted }: TokenKeyRow) => ({
  keyId,
  publicKey,
  expiresAt: BigInt(expiresAt),
  tainted,
})

export function federatedBundleToWire(row: FederatedBundleRow): BundleInit {
  return {
    trustDomain: row.trustDomain,
    x509Authorities: row.x509.map(({ der, tainted }) => ({ asn1: der, tainted })),
    jwtAuthorities: row.jwt.map(keyToWire),
    witAuthorities: row.wit.map(keyToWire),
    refreshHint: BigInt(row.refreshHint),
    sequenceNumber: BigInt(row.sequence),
  }
}

/** Only what the mask names, and the trust domain; everything without a mask. */
export function maskedBundle(bundle: BundleInit, mask: BundleMask | undefined): BundleInit {
  if (mask === undefined) return bundle
  const { trustDomain, x509Authorities, jwtAuthorities, witAuthorities } = bundle
  return {
    trustDomain: trustDomain ?? '',
    ...(mask.x509Authorities && x509Authorities ? { x509Authorities } : {}),
    ...(mask.jwtAuthorities && jwtAuthorities ? { jwtAuthorities } : {}),
    ...(mask.witAuthorities && witAuthorities ? { witAuthorities } : {}),
    ...(mask.refreshHint ? { refreshHint: bundle.refreshHint ?? 0n } : {}),
    ...(mask.sequenceNumber ? { sequenceNumber: bundle.sequenceNumber ?? 0n } : {}),
  }
}

/** What an update writes: what the mask leaves out stays as it is. */
export function updatedBundle(
  known: FederatedBundleRow,
  next: FederatedBundleRow,
  mask: BundleMask | undefined,
): FederatedBundleRow {
  if (mask === undefined) return next
  return {
    trustDomain: known.trustDomain,
    x509: mask.x509Authorities ? next.x509 : known.x509,
    jwt: mask.jwtAuthorities ? next.jwt : known.jwt,
    wit: mask.witAuthorities ? next.wit : known.wit,
    refreshHint: mask.refreshHint ? next.refreshHint : known.refreshHint,
    sequence: mask.sequenceNumber ? next.sequence : known.sequence,
  }
}

function endpointUrl(text: string, field: string): string {
  if (text.length > limits.url)
    badRequest([{ field, problem: `longer than ${limits.url} characters` }])
  const url = attempt(field, () => new URL(text))
  const isFit = url.protocol === 'https:' && url.username === '' && url.password === ''
  return isFit && url.hostname !== ''
    ? url.href
    : badRequest([{ field, problem: 'is no https URL with a host and without user' }])
}

function endpointId({ bundleEndpointProfile: profile }: FederationRelationship, at: string) {
  const field = `${at}.bundle_endpoint_profile`
  switch (profile.case) {
    case 'httpsWeb':
      return undefined
    case 'httpsSpiffe':
      return attempt(`${field}.endpoint_spiffe_id`, () =>
        parseSpiffeId(profile.value.endpointSpiffeId),
      )
    default:
      return badRequest([{ field, problem: 'is missing: https_web or https_spiffe' }])
  }
}

function relationshipOf(trustDomain: TrustDomain, url: string, id: SpiffeId | undefined) {
  const row: RelationshipRow = {
    trustDomain,
    url,
    ...(id === undefined ? {} : { endpointId: id }),
  }
  return row
}

/**
 * A relationship, with what `known` has where `mask` leaves a field out. Throws ERR_BAD_REQUEST naming
 * the field below `at`.
 */
export function relationshipFromWire(
  message: FederationRelationship,
  {
    own,
    at,
    known,
    mask,
  }: {
    readonly own: TrustDomain
    readonly at: string
    readonly known?: RelationshipRow | undefined
    readonly mask?: FederationRelationshipMask | undefined
  },
): RelationshipRow {
  const trustDomain = foreignFromWire(message.trustDomain, `${at}.trust_domain`, own)
  const keepsUrl = known !== undefined && mask !== undefined && !mask.bundleEndpointUrl
  const keepsProfile = known !== undefined && mask !== undefined && !mask.bundleEndpointProfile
  const url = keepsUrl
    ? known.url
    : endpointUrl(message.bundleEndpointUrl, `${at}.bundle_endpoint_url`)
  return relationshipOf(trustDomain, url, keepsProfile ? known.endpointId : endpointId(message, at))
}

type RelationshipInit = MessageInitShape<typeof FederationRelationshipSchema> & object

function profileOf({ endpointId: id }: RelationshipRow): RelationshipInit['bundleEndpointProfile'] {
  return id === undefined
    ? { case: 'httpsWeb', value: {} }
    : { case: 'httpsSpiffe', value: { endpointSpiffeId: id } }
}

export function relationshipToWire(
  row: RelationshipRow,
  bundle: FederatedBundleRow | undefined,
  mask?: FederationRelationshipMask,
): RelationshipInit {
  const profile = mask?.bundleEndpointProfile === false ? undefined : profileOf(row)
  const withBundle = mask?.trustDomainBundle !== false && bundle !== undefined
  return {
    trustDomain: row.trustDomain,
    bundleEndpointUrl: mask?.bundleEndpointUrl === false ? '' : row.url,
    ...(profile === undefined ? {} : { bundleEndpointProfile: profile }),
    ...(withBundle ? { trustDomainBundle: federatedBundleToWire(bundle) } : {}),
  }
}
