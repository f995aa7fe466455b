// What a registration entry may say, checked when it is written: nothing is repaired silently.
import { randomUUID } from 'node:crypto'
import type { Entry, EntryMask } from '../proto/gen/spire/api/types/entry_pb.js'
import { type FieldProblem, hasCode } from '../spiffe/errors.ts'
import { parseTrustDomain, type TrustDomain } from '../spiffe/id.ts'
import { dnsNamesProblem } from './dns-names.ts'
import { noLabels } from './labels.ts'
import type { EntryRow } from './store/model.ts'
import { badRequest, ownIdFromWire } from './wire.ts'

const limits = {
  selectors: 64,
  selectorBytes: 1024,
  hintBytes: 1024,
  federatesWith: 256,
} as const
const idForm = /^[A-Za-z0-9._-]{1,255}$/
const longestTtl = 86_400

type Check = (entry: Entry) => string | undefined

/** What is wrong with each field, if anything. */
const checks: Readonly<Record<string, Check>> = {
  id: ({ id }) =>
    id === '' || idForm.test(id)
      ? undefined
      : 'is not 1 to 255 of letters, digits, dot, hyphen, underscore',
  selectors: ({ selectors }) => {
    if (selectors.length === 0) return 'an entry needs a selector'
    if (selectors.length > limits.selectors) return `more than ${limits.selectors} selectors`
    const bad = selectors.find(
      ({ type, value }) =>
        !/^[a-z0-9_-]{1,255}$/i.test(type) || value === '' || value.length > limits.selectorBytes,
    )
    return bad === undefined
      ? undefined
      : 'a selector is type:value, with a type of letters and digits and a value'
  },
  x509_svid_ttl: ({ x509SvidTtl: ttl }) =>
    ttl < 0 || ttl > longestTtl ? `is not 0 to ${longestTtl} seconds` : undefined,
  jwt_svid_ttl: ({ jwtSvidTtl: ttl }) =>
    ttl < 0 || ttl > longestTtl ? `is not 0 to ${longestTtl} seconds` : undefined,
  hint: ({ hint }) =>
    Buffer.byteLength(hint) > limits.hintBytes ? 'is longer than 1024 bytes' : undefined,
  dns_names: ({ dnsNames }) => dnsNamesProblem(dnsNames),
  expires_at: ({ expiresAt }) =>
    expiresAt < 0n || expiresAt > 253_402_300_799n ? 'is out of range' : undefined,
}

function federatesWith(entry: Entry, trustDomain: TrustDomain, field: string): TrustDomain[] {
  if (entry.federatesWith.length > limits.federatesWith)
    badRequest([{ field, problem: 'too many trust domains' }])
  return entry.federatesWith.map((name) => {
    const foreign = parsedTrustDomain(name, field)
    return foreign === trustDomain
      ? badRequest([{ field, problem: `${name} is our own trust domain` }])
      : foreign
  })
}

function parsedTrustDomain(name: string, field: string): TrustDomain {
  try {
    return parseTrustDomain(name)
  } catch (error) {
    if (!hasCode(error)) throw error
    return badRequest([{ field, problem: error.message }])
  }
}

/** The row of a new entry; `now` in milliseconds. Throws ERR_BAD_REQUEST with every wrong field. */
export function entryFromWire(
  entry: Entry,
  trustDomain: TrustDomain,
  now: number,
  at = 'entry',
): EntryRow {
  const problems = Object.entries(checks).flatMap(([name, check]): FieldProblem[] => {
    const problem = check(entry)
    return problem === undefined ? [] : [{ field: `${at}.${name}`, problem }]
  })
  if (problems.length > 0) badRequest(problems)
  return {
    id: entry.id === '' ? randomUUID() : entry.id,
    spiffeId: ownIdFromWire(entry.spiffeId, `${at}.spiffe_id`, trustDomain, { reserved: false }),
    parentId: ownIdFromWire(entry.parentId, `${at}.parent_id`, trustDomain, { reserved: true }),
    selectors: entry.selectors.map(({ type, value }) => ({ type, value })),
    x509SvidTtl: entry.x509SvidTtl,
    jwtSvidTtl: entry.jwtSvidTtl,
    federatesWith: federatesWith(entry, trustDomain, `${at}.federates_with`),
    admin: entry.admin,
    downstream: entry.downstream,
    expiresAt: Number(entry.expiresAt),
    dnsNames: [...entry.dnsNames],
    storeSvid: entry.storeSvid,
    hint: entry.hint,
    disablePrefetch: entry.additionalAttributes?.disableX509SvidPrefetch ?? false,
    includeJti: entry.additionalAttributes?.jwtSvidIncludeJti ?? false,
    labels: noLabels,
    revision: 0,
    createdAt: Math.floor(now / 1000),
  }
}

const maskFields = {
  spiffeId: ['spiffeId'],
  parentId: ['parentId'],
  selectors: ['selectors'],
  x509SvidTtl: ['x509SvidTtl'],
  jwtSvidTtl: ['jwtSvidTtl'],
  federatesWith: ['federatesWith'],
  admin: ['admin'],
  downstream: ['downstream'],
  expiresAt: ['expiresAt'],
  dnsNames: ['dnsNames'],
  storeSvid: ['storeSvid'],
  hint: ['hint'],
  additionalAttributes: ['disablePrefetch', 'includeJti'],
} as const satisfies Partial<Record<keyof EntryMask, readonly (keyof EntryRow)[]>>

/** `known` with what `mask` selects taken from `wanted`; without a mask, everything is replaced. */
export function updatedEntry(
  known: EntryRow,
  wanted: EntryRow,
  mask: EntryMask | undefined,
): EntryRow {
  const { id, createdAt, labels } = known
  const fixed = { id, createdAt, labels, revision: known.revision + 1 }
  if (mask === undefined) return { ...wanted, ...fixed }
  const chosen = new Map(Object.entries(mask))
  const picked = Object.entries(maskFields)
    .filter(([name]) => chosen.get(name) === true)
    .flatMap(([, fields]) => fields.map((field) => [field, wanted[field]] as const))
  return { ...known, ...Object.fromEntries(picked), ...fixed }
}
