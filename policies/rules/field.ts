// The fields of a rule, each made into one test of a request. A field knows where it was written, so that
// an explanation can name it, and whether it asks about HTTP, which TCP connections have not.
import type { Request } from '../attributes/request.ts'
import type { OperationDocument, RuleDocument, SourceDocument } from '../language/authorization.ts'
import { type ConditionKind, conditionOf } from '../language/conditions.ts'
import {
  claim,
  destinationIp,
  destinationPort,
  metadata,
  namespaces,
  principals,
  remoteIp,
  requestPrincipals,
  serverName,
  serviceAccounts,
  sourceIp,
  trustDomains,
} from './caller-tests.ts'
import { header, hosts, method, paths } from './http-tests.ts'
import type { Made, Setting } from './test.ts'

export interface FieldTest {
  /** as it was written: `notPaths`, `request.headers[x-role]` */
  readonly name: string
  /** from the rule: `to[0].operation.notPaths`, `when[1].notValues` */
  readonly place: string
  readonly asksHttp: boolean
  holds(request: Request): boolean
}

const sourceFields: ReadonlyMap<string, Made> = new Map([
  ['principals', principals],
  ['requestPrincipals', requestPrincipals],
  ['namespaces', namespaces],
  ['ipBlocks', sourceIp],
  ['remoteIpBlocks', remoteIp],
  ['serviceAccounts', serviceAccounts],
  ['trustDomains', trustDomains],
])

const operationFields: ReadonlyMap<string, Made> = new Map([
  ['hosts', hosts],
  ['ports', destinationPort],
  ['methods', method],
  ['paths', paths],
])

const conditions: Readonly<Record<ConditionKind, (names: readonly string[]) => Made>> = {
  header: ([name = '']) => header(name),
  'source.ip': () => sourceIp,
  'remote.ip': () => remoteIp,
  'source.namespace': () => namespaces,
  'source.principal': () => principals,
  'source.serviceAccount': () => serviceAccounts,
  'source.trustDomain': () => trustDomains,
  requestPrincipal: () => requestPrincipals,
  audiences: () => claim(['aud']),
  presenter: () => claim(['azp']),
  claim,
  'destination.ip': () => destinationIp,
  'destination.port': () => destinationPort,
  sni: () => serverName,
  metadata: () => metadata,
}

/** `notPaths` is the negation of `paths`. */
function partsOf(field: string): { base: string; negated: boolean } {
  if (!field.startsWith('not')) return { base: field, negated: false }
  return { base: `${field.charAt(3).toLowerCase()}${field.slice(4)}`, negated: true }
}

function testsOf(
  document: SourceDocument | OperationDocument,
  table: ReadonlyMap<string, Made>,
  { place, setting }: { readonly place: string; readonly setting: Setting },
): FieldTest[] {
  return Object.entries(document).flatMap(([name, texts]) => {
    const { base, negated } = partsOf(name)
    const made = table.get(base)
    if (made === undefined || texts === undefined) return []
    const { asksHttp } = made
    return [
      { name, place: `${place}.${name}`, asksHttp, holds: made.make(texts, negated, setting) },
    ]
  })
}

export function sourceTests(source: SourceDocument, place: string, setting: Setting): FieldTest[] {
  return testsOf(source, sourceFields, { place, setting })
}

export function operationTests(
  operation: OperationDocument,
  place: string,
  setting: Setting,
): FieldTest[] {
  return testsOf(operation, operationFields, { place, setting })
}

export type ConditionDocument = NonNullable<RuleDocument['when']>[number]

export function conditionTests(
  { key, values, notValues }: ConditionDocument,
  place: string,
  setting: Setting,
): FieldTest[] {
  const known = conditionOf(key)
  const made = known === undefined ? undefined : conditions[known.kind](known.names)
  // a key that slipped past the reader is one that cannot be evaluated
  const unknown: Made = { asksHttp: false, make: metadata.make }
  const { asksHttp, make } = made ?? unknown
  const test = (field: 'values' | 'notValues', texts: readonly string[] | undefined) =>
    texts === undefined
      ? []
      : [
          {
            name: key,
            place: `${place}.${field}`,
            asksHttp,
            holds: make(texts, field === 'notValues', setting),
          },
        ]
  return [...test('values', values), ...test('notValues', notValues)]
}
