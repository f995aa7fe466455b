// AuthorizationPolicy as its author writes it (authorization.md §4.1, §4.15), and what castellan.dev/v1
// adds to it. What this version does not decide on is an unknown key, and so refused.
import { z } from 'zod'
import { compileCondition } from '../rules/condition.ts'
import { conditionOf, unknownKeyProblem } from './conditions.ts'
import {
  dryRunAnnotation,
  hasOneTarget,
  istioVersions,
  metadata,
  ownVersion,
  whom,
} from './metadata.ts'
import * as words from './words.ts'

const isGiven = (it: object) => Object.values(it).some((value) => value !== undefined)

const sourceFields = {
  principals: words.listOf(words.principal).optional(),
  notPrincipals: words.listOf(words.principal).optional(),
  requestPrincipals: words.listOf(words.requestPrincipal).optional(),
  notRequestPrincipals: words.listOf(words.requestPrincipal).optional(),
  namespaces: words.listOf(words.namespace).optional(),
  notNamespaces: words.listOf(words.namespace).optional(),
  ipBlocks: words.listOf(words.ipBlock).optional(),
  notIpBlocks: words.listOf(words.ipBlock).optional(),
  remoteIpBlocks: words.listOf(words.ipBlock).optional(),
  notRemoteIpBlocks: words.listOf(words.ipBlock).optional(),
  serviceAccounts: words.listOf(words.serviceAccount, 16).optional(),
  notServiceAccounts: words.listOf(words.serviceAccount, 16).optional(),
  trustDomains: words.listOf(words.trustDomain).optional(),
  notTrustDomains: words.listOf(words.trustDomain).optional(),
}

const accounts = ['serviceAccounts', 'notServiceAccounts'] as const
const besideAccounts = ['principals', 'notPrincipals', 'namespaces', 'notNamespaces'] as const

export const source = z
  .strictObject(sourceFields)
  .refine(isGiven, 'a source names at least one field')
  .refine(
    (it) =>
      accounts.every((field) => it[field] === undefined) ||
      besideAccounts.every((field) => it[field] === undefined),
    'serviceAccounts do not stand beside principals or namespaces in one source',
  )

export const operation = z
  .strictObject({
    hosts: words.listOf(words.host).optional(),
    notHosts: words.listOf(words.host).optional(),
    ports: words.listOf(words.port).optional(),
    notPorts: words.listOf(words.port).optional(),
    methods: words.listOf(words.method).optional(),
    notMethods: words.listOf(words.method).optional(),
    paths: words.listOf(words.path).optional(),
    notPaths: words.listOf(words.path).optional(),
  })
  .refine(isGiven, 'an operation names at least one field')

const condition = z
  .strictObject({
    key: z.string().min(1, 'a condition has a key'),
    values: words.listOf(z.string()).optional(),
    notValues: words.listOf(z.string()).optional(),
  })
  .superRefine((it, context) => {
    const known = conditionOf(it.key)
    const problem = (path: (string | number)[], message: string) =>
      context.addIssue({ code: 'custom', path, message })
    if (it.key === '') return
    if (known === undefined) return problem(['key'], unknownKeyProblem(it.key))
    if (it.values === undefined && it.notValues === undefined) {
      return problem([], 'a condition has values or notValues')
    }
    for (const field of ['values', 'notValues'] as const) {
      for (const [i, text] of (it[field] ?? []).entries()) {
        for (const issue of known.values.safeParse(text).error?.issues ?? []) {
          problem([field, i], issue.message)
        }
      }
    }
  })

const expression = z.string().superRefine((text, context) => {
  const compiled = compileCondition(text)
  if (!compiled.ok) context.addIssue({ code: 'custom', message: compiled.problem })
})

/** One rule; the last two fields need castellan.dev/v1. */
export const ruleDocument = z.strictObject({
  from: words.listOf(z.strictObject({ source })).optional(),
  to: words.listOf(z.strictObject({ operation })).optional(),
  when: words.listOf(condition).optional(),
  // sources that the rule does not speak of
  exceptFor: words.listOf(z.strictObject({ source })).optional(),
  // a CEL expression that has to be true as well
  condition: expression.optional(),
})

const targets = words.listOf(words.principal)

const day = z
  .string()
  .refine((text) => !Number.isNaN(Date.parse(text)), 'a date is written 2027-01-31 or as RFC 3339')

export const authorizationSpec = z.strictObject({
  ...whom,
  action: z.enum(['ALLOW', 'DENY', 'AUDIT', 'CUSTOM']).default('ALLOW'),
  provider: z.strictObject({ name: words.name }).optional(),
  rules: z.array(ruleDocument).max(512).optional(),
  // castellan.dev/v1: workloads by SPIFFE ID, whatever their namespace
  targets: targets.optional(),
  // shadow: evaluated and reported, never enforced
  mode: z.enum(['enforce', 'shadow']).optional(),
  // from then on it matches nothing
  expires: day.optional(),
})

export type AuthorizationSpec = z.infer<typeof authorizationSpec>
export type RuleDocument = z.infer<typeof ruleDocument>
export type SourceDocument = z.infer<typeof source>
export type OperationDocument = z.infer<typeof operation>

interface Finding {
  readonly path: readonly (string | number)[]
  readonly message: string
}

const ownSpecFields = ['targets', 'mode', 'expires'] as const
const ownRuleFields = ['exceptFor', 'condition'] as const

interface Written {
  readonly path: readonly (string | number)[]
  readonly text: string
}

/** Every principal of a rule, with its place in it. */
function* principalsOf({ from = [], when = [] }: RuleDocument): Generator<Written> {
  for (const [i, { source: it }] of from.entries()) {
    for (const field of ['principals', 'notPrincipals'] as const) {
      for (const [k, text] of (it[field] ?? []).entries()) {
        yield { path: ['from', i, 'source', field, k], text }
      }
    }
  }
  for (const [i, it] of when.entries()) {
    if (it.key !== 'source.principal') continue
    for (const field of ['values', 'notValues'] as const) {
      for (const [k, text] of (it[field] ?? []).entries())
        yield { path: ['when', i, field, k], text }
    }
  }
}

/** Fields of the superset in a document that says it is Istio's. */
function* supersetFindings(spec: AuthorizationSpec): Generator<Finding> {
  const message = `only with apiVersion: ${ownVersion}`
  for (const field of ownSpecFields) {
    if (spec[field] !== undefined) yield { path: ['spec', field], message }
  }
  for (const [i, rule] of (spec.rules ?? []).entries()) {
    for (const field of ownRuleFields) {
      if (rule[field] !== undefined) yield { path: ['spec', 'rules', i, field], message }
    }
    for (const { path, text } of principalsOf(rule)) {
      if (!text.startsWith('spiffe://')) continue
      const short = text.slice('spiffe://'.length)
      yield {
        path: ['spec', 'rules', i, ...path],
        message: `a principal is written without spiffe://, as ${short}; whole SPIFFE IDs ${message}`,
      }
    }
  }
}

const identityFields = [
  ['principals', 'notPrincipals'],
  ['requestPrincipals', 'notRequestPrincipals'],
  ['namespaces', 'notNamespaces'],
  ['serviceAccounts', 'notServiceAccounts'],
  ['trustDomains', 'notTrustDomains'],
].flat()

/** §4.12: what an external authorizer is asked about cannot depend on who asks. */
function* customFindings(rules: readonly RuleDocument[]): Generator<Finding> {
  const message = 'not with CUSTOM: identities are not known when an authorizer is asked'
  for (const [i, rule] of rules.entries()) {
    for (const [j, { source: it }] of (rule.from ?? []).entries()) {
      for (const [field, value] of Object.entries(it)) {
        if (value !== undefined && identityFields.includes(field)) {
          yield { path: ['spec', 'rules', i, 'from', j, 'source', field], message }
        }
      }
    }
    for (const [j, { key }] of (rule.when ?? []).entries()) {
      if (conditionOf(key)?.isIdentity) {
        yield { path: ['spec', 'rules', i, 'when', j, 'key'], message }
      }
    }
  }
}

function* actionFindings(spec: AuthorizationSpec): Generator<Finding> {
  const { action, provider, rules = [] } = spec
  if (action === 'CUSTOM' && provider === undefined) {
    yield { path: ['spec', 'provider'], message: 'a CUSTOM policy names its provider' }
  }
  if (action !== 'CUSTOM' && provider !== undefined) {
    yield { path: ['spec', 'provider'], message: 'only a CUSTOM policy has a provider' }
  }
  if ((action === 'DENY' || action === 'CUSTOM') && rules.length === 0) {
    const message = `a ${action} policy without rules does nothing`
    yield { path: ['spec', 'rules'], message }
  }
  if (action === 'CUSTOM') yield* customFindings(rules)
}

const booleans: ReadonlyMap<string, boolean> = new Map([
  ...['1', 't', 'T', 'TRUE', 'true', 'True'].map((it): [string, boolean] => [it, true]),
  ...['0', 'f', 'F', 'FALSE', 'false', 'False'].map((it): [string, boolean] => [it, false]),
])

/** Whether a policy is only watched (§4.14). */
export function isShadow({
  metadata: { annotations },
  spec,
}: {
  readonly metadata: { readonly annotations?: Readonly<Record<string, string>> | undefined }
  readonly spec: AuthorizationSpec
}): boolean {
  return spec.mode === 'shadow' || booleans.get(annotations?.[dryRunAnnotation] ?? '') === true
}

export const authorizationPolicy = z
  .strictObject({
    apiVersion: z.enum([...istioVersions, ownVersion]),
    kind: z.literal('AuthorizationPolicy'),
    metadata,
    spec: authorizationSpec.nullish().transform((spec) => spec ?? authorizationSpec.parse({})),
    status: z.unknown().optional(),
  })
  .superRefine(({ apiVersion, metadata: { annotations }, spec }, context) => {
    const add = ({ path, message }: Finding) =>
      context.addIssue({ code: 'custom', path: [...path], message })
    if (apiVersion !== ownVersion) for (const finding of supersetFindings(spec)) add(finding)
    for (const finding of actionFindings(spec)) add(finding)
    if (!hasOneTarget(spec)) {
      add({ path: ['spec'], message: 'give one of selector, targetRef and targetRefs' })
    }
    const dryRun = annotations?.[dryRunAnnotation]
    const path = ['metadata', 'annotations', dryRunAnnotation]
    if (dryRun !== undefined && !booleans.has(dryRun)) {
      add({ path, message: `${JSON.stringify(dryRun)} is no boolean: write "true" or "false"` })
    }
    if (dryRun !== undefined && spec.action !== 'ALLOW' && spec.action !== 'DENY') {
      add({ path, message: 'only ALLOW and DENY policies can be tried dry' })
    }
  })

export type AuthorizationDocument = z.infer<typeof authorizationPolicy>
