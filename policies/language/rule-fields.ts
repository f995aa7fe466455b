// The fields of a rule as one list, each with its place: what `from`, `to`, `when` and `exceptFor` ask about is
// named alike, whichever of them asks.
import { fieldName, type Path } from '../../documents/yaml.ts'
import type { OperationDocument, RuleDocument, SourceDocument } from './authorization.ts'
import { type ConditionKind, conditionOf } from './conditions.ts'

/** What a field compares. */
export type Attribute =
  | 'principals'
  | 'namespaces'
  | 'serviceAccounts'
  | 'trustDomains'
  | 'ipBlocks'
  | 'remoteIpBlocks'
  | 'requestPrincipals'
  | 'hosts'
  | 'ports'
  | 'methods'
  | 'paths'
  | 'target'
  | 'header'
  | 'claim'
  | 'destinationIp'
  | 'sni'
  | 'metadata'

export type Part = 'from' | 'to' | 'when' | 'exceptFor'

export interface RuleField {
  readonly part: Part
  /** position in the list of its part */
  readonly alternative: number
  /** from the rule; ends in the list of values */
  readonly path: Path
  /** the same as people write it: `to[0].operation.paths` */
  readonly place: string
  /** as it was written: `notPaths`, `request.headers[x-role]` */
  readonly name: string
  readonly attribute: Attribute
  readonly isNegated: boolean
  readonly texts: readonly string[]
  /** the header's name in lower case, or the names on the way to a claim */
  readonly names: readonly string[]
}

const ofCondition: Readonly<Record<ConditionKind, Attribute>> = {
  header: 'header',
  'source.ip': 'ipBlocks',
  'remote.ip': 'remoteIpBlocks',
  'source.namespace': 'namespaces',
  'source.principal': 'principals',
  'source.serviceAccount': 'serviceAccounts',
  'source.trustDomain': 'trustDomains',
  requestPrincipal: 'requestPrincipals',
  audiences: 'claim',
  presenter: 'claim',
  claim: 'claim',
  'destination.ip': 'destinationIp',
  'destination.port': 'ports',
  sni: 'sni',
  metadata: 'metadata',
}

const claims: Readonly<Partial<Record<ConditionKind, readonly string[]>>> = {
  audiences: ['aud'],
  presenter: ['azp'],
}

// headers that are compared as what they say
const special: ReadonlyMap<string, Attribute> = new Map([
  [':method', 'methods'],
  [':path', 'target'],
  [':authority', 'hosts'],
  ['host', 'hosts'],
])

const plain: ReadonlyMap<string, Attribute> = new Map(
  (
    [
      'principals',
      'namespaces',
      'serviceAccounts',
      'trustDomains',
      'ipBlocks',
      'remoteIpBlocks',
      'requestPrincipals',
      'hosts',
      'ports',
      'methods',
      'paths',
    ] as const
  ).map((it) => [it, it]),
)

const positive = (name: string) =>
  name.startsWith('not') ? `${name.charAt(3).toLowerCase()}${name.slice(4)}` : name

type At = Pick<RuleField, 'part' | 'alternative'> & { readonly path: Path }

function fieldsOfObject(it: SourceDocument | OperationDocument, at: At): RuleField[] {
  return Object.entries(it).flatMap(([name, texts]) => {
    const attribute = plain.get(positive(name))
    if (attribute === undefined || texts === undefined) return []
    const path = [...at.path, name]
    const isNegated = name.startsWith('not')
    return [{ ...at, path, place: fieldName(path), name, attribute, isNegated, texts, names: [] }]
  })
}

type ConditionDocument = NonNullable<RuleDocument['when']>[number]

function fieldsOfCondition(it: ConditionDocument, at: At): RuleField[] {
  const known = conditionOf(it.key)
  if (known === undefined) return []
  const names = claims[known.kind] ?? known.names
  const header = known.kind === 'header' ? special.get(names[0] ?? '') : undefined
  const attribute = header ?? ofCondition[known.kind]
  return (['values', 'notValues'] as const).flatMap((list) => {
    const texts = it[list]
    if (texts === undefined) return []
    const path = [...at.path, list]
    const isNegated = list === 'notValues'
    return [
      { ...at, path, place: fieldName(path), name: it.key, attribute, isNegated, texts, names },
    ]
  })
}

/** In the order of from, to, when, exceptFor. */
export function fieldsOf({ from, to, when, exceptFor }: RuleDocument): readonly RuleField[] {
  const sources = (part: 'from' | 'exceptFor', list: RuleDocument['from'] = []) =>
    list.flatMap(({ source }, alternative) =>
      fieldsOfObject(source, { part, alternative, path: [part, alternative, 'source'] }),
    )
  return [
    ...sources('from', from),
    ...(to ?? []).flatMap(({ operation }, alternative) =>
      fieldsOfObject(operation, {
        part: 'to',
        alternative,
        path: ['to', alternative, 'operation'],
      }),
    ),
    ...(when ?? []).flatMap((it, alternative) =>
      fieldsOfCondition(it, { part: 'when', alternative, path: ['when', alternative] }),
    ),
    ...sources('exceptFor', exceptFor),
  ]
}

export const identityAttributes: ReadonlySet<Attribute> = new Set([
  'principals',
  'namespaces',
  'serviceAccounts',
  'trustDomains',
])

export const httpAttributes: ReadonlySet<Attribute> = new Set([
  'requestPrincipals',
  'hosts',
  'methods',
  'paths',
  'target',
  'header',
  'claim',
])
