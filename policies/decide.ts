// The decision: pure, DENY overrides ALLOW, nothing matching is a denial, the answer names its rule.
import { type CompiledRule, type PolicySet, ruleMatches, type Scope } from './compile.ts'
import { namespaceOf, type Request } from './request.ts'

export type Decision =
  | { readonly allow: true; readonly rule: CompiledRule }
  | {
      readonly allow: false
      /** the DENY that matched; undefined when no ALLOW did */
      readonly rule: CompiledRule | undefined
    }

export function scopeFor(set: PolicySet, request: Request): Scope {
  return set.scopes.get(namespaceOf(request.destination.id)) ?? set.meshWide
}

/** Never throws: a rule that cannot be evaluated counts as a matching DENY and a failing ALLOW. */
export function decide(set: PolicySet, request: Request): Decision {
  const { deny, allow } = scopeFor(set, request)
  for (const rule of deny) if (ruleMatches(rule, request)) return { allow: false, rule }
  for (const rule of allow) if (ruleMatches(rule, request)) return { allow: true, rule }
  return { allow: false, rule: undefined }
}

/** `namespace/name` of what determined the decision; empty when nothing matched. */
export function policyNameOf(decision: Decision): string {
  const policy = decision.rule?.policy
  return policy === undefined ? '' : `${policy.namespace}/${policy.name}`
}
