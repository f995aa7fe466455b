// A reference interpreter of authorization policies, written from the texts of authorization.md §4-5 and
// corpus/README.md alone and importing nothing of the product: what the engine says is compared with it.
import { attributeOfKey, type Context, fields, type Mode } from './attribute.ts'
import {
  type Condition,
  type Document,
  type Fields,
  isRecord,
  type Rule,
  readDocument,
} from './document.ts'
import { isSpiffeId } from './identity.ts'
import { type Mesh, type OracleMesh, wholeMesh } from './mesh.ts'
import { type OracleRequest, viewHttp } from './request.ts'

export type { OracleMesh } from './mesh.ts'
export type { OracleRequest } from './request.ts'

export type OracleProfile = 'strict' | 'istio'

export interface OracleDecision {
  readonly decision: 'allow' | 'deny' | 'reject'
  /** `namespace/name#rule` of each rule that may be named as the one that determined it */
  readonly matching: string[]
}

const known = new WeakMap<object, Document>()

/** Many requests are decided by the same documents. */
function documentOf(value: unknown): Document {
  const kept = isRecord(value) ? known.get(value) : undefined
  const document = kept ?? readDocument(value)
  if (isRecord(value)) known.set(value, document)
  return document
}

/** §4.11: a policy of the root namespace or the workload's, whose labels the workload has. */
function isInScope(document: Document, mesh: Mesh, request: OracleRequest): boolean {
  const { namespace = 'default', labels = {} } = request.destination ?? {}
  const near = [mesh.rootNamespace, namespace].includes(document.namespace)
  const wanted = Object.entries(document.labels)
  const selected = wanted.every(
    ([key, value]) => Object.hasOwn(labels, key) && labels[key] === value,
  )
  return near && selected && !document.targeted
}

function attributeOfField(name: string): { readonly field: string; readonly negated: boolean } {
  if (Object.hasOwn(fields, name)) return { field: name, negated: false }
  const field = name.replace(/^not(.)/, (_, first: string) => first.toLowerCase())
  if (!Object.hasOwn(fields, field)) throw new TypeError(`oracle: no field is named ${name}`)
  return { field, negated: true }
}

const isHttpOnly = (name: string): boolean =>
  fields[attributeOfField(name).field]?.httpOnly ?? false

const isHttpOnlyKey = ({ key }: Condition): boolean => attributeOfKey(key)?.httpOnly ?? false

const usesHttp = ({ from = [], to = [], when }: Rule): boolean =>
  [...from, ...to].flatMap((each) => Object.keys(each)).some(isHttpOnly) || when.some(isHttpOnlyKey)

/** A source or an operation; on TCP a rule that denies goes by what is left of it. */
function fieldsHold(given: Fields, context: Context): boolean {
  return Object.entries(given).every(([name, values]) => {
    const { field, negated } = attributeOfField(name)
    const attribute = fields[field]
    if (attribute === undefined) return true
    if (attribute.httpOnly && context.http === undefined) return true
    return attribute.holds(values, negated, context)
  })
}

function conditionHolds({ key, values, notValues }: Condition, context: Context): boolean {
  const attribute = attributeOfKey(key)
  // row 135: Istio drops the rule, strict fails closed
  if (attribute === undefined) return context.mode === 'strict-deny'
  if (attribute.httpOnly && context.http === undefined) return true
  const positive = values.length === 0 || attribute.holds(values, false, context)
  const negative = notValues.length === 0 || attribute.holds(notValues, true, context)
  return positive && negative
}

/** §4.3, and §4.9 on TCP. */
function ruleHolds(rule: Rule, action: string, context: Context): boolean {
  if (context.http === undefined && action === 'ALLOW' && usesHttp(rule)) return false
  const from = rule.from?.some((source) => fieldsHold(source, context)) ?? true
  const to = rule.to?.some((operation) => fieldsHold(operation, context)) ?? true
  return from && to && rule.when.every((condition) => conditionHolds(condition, context))
}

/** Claims that are split on spaces, by the rules of the token's issuer. */
function spaceDelimited(documents: readonly Document[], request: OracleRequest): readonly string[] {
  const issuer = request.jwt?.claims.iss
  const rules = documents.flatMap(({ jwtRules }) => jwtRules)
  const concerned = rules.filter((rule) => rule.issuer === undefined || rule.issuer === issuer)
  return ['scope', 'permission', ...concerned.flatMap((rule) => rule.spaceDelimitedClaims)]
}

const modeOf = (profile: OracleProfile, action: string): Mode =>
  profile === 'istio' ? 'istio' : action === 'ALLOW' ? 'strict-allow' : 'strict-deny'

/** The decision for one request (§4.2); documents are parsed YAML and taken as valid. */
export function oracleDecide(
  documents: readonly unknown[],
  givenMesh: OracleMesh,
  profile: OracleProfile,
  request: OracleRequest,
): OracleDecision {
  const mesh = wholeMesh(givenMesh)
  const strict = profile === 'strict'
  const http = viewHttp(request, strict)
  const principal = request.source?.principal
  if (http === 'reject' || (strict && principal !== undefined && !isSpiffeId(principal))) {
    return { decision: 'reject', matching: [] }
  }
  const near = documents.map(documentOf).filter((each) => isInScope(each, mesh, request))
  const authentications = near.filter(({ kind }) => kind === 'RequestAuthentication')
  const policies = near.filter((each) => each.kind === 'AuthorizationPolicy' && !each.dryRun)
  const base = { mesh, request, http, spaceDelimited: spaceDelimited(authentications, request) }
  const matching = (actions: readonly string[]): string[] =>
    policies
      .filter(({ action }) => actions.includes(action))
      .flatMap(({ namespace, name, action, rules }) => {
        const context = { ...base, policyNamespace: namespace, mode: modeOf(profile, action) }
        return rules.flatMap((rule, at) =>
          ruleHolds(rule, action, context) ? [`${namespace}/${name}#${at}`] : [],
        )
      })
  const denying = matching(['CUSTOM', 'DENY'])
  if (denying.length > 0) return { decision: 'deny', matching: denying }
  const allowing = matching(['ALLOW'])
  if (allowing.length > 0) return { decision: 'allow', matching: allowing }
  const isOpen = !strict && !policies.some(({ action }) => action === 'ALLOW')
  return { decision: isOpen ? mesh.defaultAction : 'deny', matching: [] }
}
