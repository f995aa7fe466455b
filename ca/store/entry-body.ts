// An entry as it lies in the store, read by hand: there are up to a million of them at a start, and a schema
// takes three times as long as JSON.parse itself. Checked all the same: never believed.
import { IdentityError } from '../../spiffe/errors.ts'
import { isSpiffeId } from '../../spiffe/id.ts'
import { noLabels } from '../labels.ts'
import type { EntryRow, SelectorRow } from './model.ts'

const isText = (value: unknown): value is string => typeof value === 'string'
const isNumber = (value: unknown): value is number => typeof value === 'number'
const isFlag = (value: unknown): value is boolean => typeof value === 'boolean'
const isId = (value: unknown) => isText(value) && isSpiffeId(value)
const isTexts = (value: unknown) => Array.isArray(value) && value.every(isText)

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}

function isSelector(value: unknown): value is SelectorRow {
  return isRecord(value) && isText(value.type) && isText(value.value)
}

/** As it is written: most entries have no labels, and a word less each is megabytes. */
type EntryBody = Omit<EntryRow, 'labels'> & { readonly labels?: EntryRow['labels'] }

const checks: Readonly<Record<keyof EntryBody, (value: unknown) => boolean>> = {
  id: isText,
  spiffeId: isId,
  parentId: isId,
  selectors: (value) => Array.isArray(value) && value.every(isSelector),
  x509SvidTtl: isNumber,
  jwtSvidTtl: isNumber,
  federatesWith: isTexts,
  admin: isFlag,
  downstream: isFlag,
  expiresAt: isNumber,
  dnsNames: isTexts,
  storeSvid: isFlag,
  hint: isText,
  disablePrefetch: isFlag,
  includeJti: isFlag,
  revision: isNumber,
  createdAt: isNumber,
  labels: (value) => value === undefined || (isRecord(value) && Object.values(value).every(isText)),
}
const fields = Object.entries(checks)

function isEntry(value: unknown): value is EntryBody {
  if (!isRecord(value)) return false
  for (const [field, holds] of fields) if (!holds(value[field])) return false
  const most = value.labels === undefined ? fields.length - 1 : fields.length
  return Object.keys(value).length === most
}

export function bodyOf({ labels, ...rest }: EntryRow): string {
  const body: EntryBody = Object.keys(labels).length === 0 ? rest : { ...rest, labels }
  return JSON.stringify(body)
}

const none: readonly never[] = []
const orNone = <T>(list: readonly T[]): readonly T[] => (list.length === 0 ? none : list)

/** Throws ERR_STORE for what is not as it was written. */
export function entryOf(body: unknown): EntryRow {
  const value: unknown = isText(body) ? JSON.parse(body) : undefined
  if (!isEntry(value)) {
    throw new IdentityError('ERR_STORE', `the store holds an entry that is none: ${body}`)
  }
  // most have none of either: a million empty lists would be many megabytes
  return {
    ...value,
    labels: value.labels ?? noLabels,
    dnsNames: orNone(value.dnsNames),
    federatesWith: orNone(value.federatesWith),
  }
}
