// A policy that speaks of one request and of nothing else.
import type { Request } from '../attributes/request.ts'
import { authorizationPolicy, type RuleDocument, ruleDocument } from '../language/authorization.ts'
import type { Mesh } from '../language/mesh.ts'
import { istioVersions } from '../language/metadata.ts'
import type { Labels, Policy } from '../language/policy.ts'
import type { Attribute } from '../language/rule-fields.ts'
import { literalValues } from './values.ts'

type Action = 'ALLOW' | 'DENY'

/** Whoever has no identity is known by its address alone. */
function callerOf(own: (attribute: Attribute) => string[] | undefined) {
  const principals = own('principals')
  if (principals !== undefined) return { principals }
  const ipBlocks = own('ipBlocks')
  return ipBlocks === undefined ? undefined : { ipBlocks }
}

function ruleOf(request: Request, action: Action, mesh: Mesh): RuleDocument | undefined {
  const as = { policy: { ...empty, action }, mesh }
  const own = (attribute: Attribute) => {
    const values = literalValues({ attribute, names: [] }, request, as)
    return values === undefined ? undefined : [...values]
  }
  const source = callerOf(own)
  if (source === undefined) return undefined
  const from = [{ source }]
  if (request.http === undefined) {
    const ports = own('ports')
    return ports === undefined ? { from } : { from, to: [{ operation: { ports } }] }
  }
  const [methods, readings] = [own('methods'), own('paths')]
  // an ALLOW has to match all of them, for a DENY what is forwarded is enough
  const paths = action === 'DENY' ? readings?.slice(0, 1) : readings
  if (methods === undefined || paths === undefined) return undefined
  return { from, to: [{ operation: { methods, paths } }] }
}

const empty: Policy = {
  namespace: 'default',
  name: 'new',
  action: 'ALLOW',
  rules: [],
  selector: undefined,
  targets: undefined,
  isElsewhere: false,
  isShadow: false,
  excused: [],
  expires: undefined,
  provider: undefined,
  isIstio: true,
  file: '',
  line: 1,
  lines: [1],
}

/** The document that an operator would write for it. */
export function documentOf({ namespace, name, action, rules, selector }: Policy): object {
  return {
    apiVersion: istioVersions[0],
    kind: 'AuthorizationPolicy',
    metadata: { name, namespace },
    spec: {
      action,
      ...(selector === undefined ? {} : { selector: { matchLabels: selector } }),
      rules,
    },
  }
}

function labelsOf({ destination: { labels } }: Request): Labels | undefined {
  return Object.keys(labels).length === 0 ? undefined : labels
}

/** Undefined when no policy file could say it, or only with more than this request. */
export function exactPolicy(request: Request, action: Action, mesh: Mesh): Policy | undefined {
  const rule = ruleOf(request, action, mesh)
  if (rule === undefined || !ruleDocument.safeParse(rule).success) return undefined
  const { namespace } = request.destination
  const policy = { ...empty, namespace, action, rules: [rule], selector: labelsOf(request) }
  return authorizationPolicy.safeParse(documentOf(policy)).success ? policy : undefined
}
