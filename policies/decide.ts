// The decision: pure, DENY overrides ALLOW, the answer names its rule (authorization.md §4.2). In strict
// what nothing allows is denied.
import type { Request } from './attributes/request.ts'
import type { Guard, PolicySet } from './compile.ts'
import { type Consents, consentTo, noConsent } from './consent.ts'
import { policyName } from './language/policy.ts'
import type { CompiledRule } from './rules/rule.ts'

export type Decision =
  | {
      readonly allow: true
      /** the ALLOW that matched; undefined where the default allows (istio) */
      readonly rule: CompiledRule | undefined
    }
  | {
      readonly allow: false
      /** the CUSTOM or DENY that matched; undefined when no ALLOW did */
      readonly rule: CompiledRule | undefined
      /** what denied it before any rule did: a caller without identity, where PeerAuthentication wants one */
      readonly before?: 'plaintext'
    }

const allowed: Decision = { allow: true, rule: undefined }
const denied: Decision = { allow: false, rule: undefined }
const plaintext: Decision = { allow: false, rule: undefined, before: 'plaintext' }

function answer({ deny, allow, hasAllow }: Guard['shadow'] & object, request: Request) {
  const refusing = deny.size > 0 ? deny.find(request) : undefined
  if (refusing !== undefined) return { allow: false, rule: refusing } as const
  const allowing = allow.size > 0 ? allow.find(request) : undefined
  if (allowing !== undefined) return { allow: true, rule: allowing } as const
  return hasAllow ? denied : undefined
}

/** The CUSTOM rule that matches and was not consented to. */
function unasked({ custom }: Guard, request: Request, consents: Consents) {
  for (const rules of custom) {
    const rule = rules.find(request)
    if (rule !== undefined && !consents.has(consentTo(rule))) return rule
  }
  return undefined
}

/** What a destination's guard says; never throws. A CUSTOM rule asks nobody here: without consent it denies. */
export function decideBy(guard: Guard, request: Request, consents = noConsent): Decision {
  const { source, destination } = request
  if (source === undefined && guard.demandsMutualTls(destination.port)) return plaintext
  const custom = unasked(guard, request, consents)
  if (custom !== undefined) return { allow: false, rule: custom }
  const answered = answer(guard, request)
  if (answered !== undefined) return answered
  const { profile, defaultAction } = guard.mesh
  return profile === 'istio' && defaultAction === 'allow' ? allowed : denied
}

/** Decides about one request of any destination. */
export function decide(set: PolicySet, request: Request): Decision {
  return decideBy(set.guardOf(request.destination), request)
}

/** What the watched policies alone would say; undefined when they say nothing (§4.14). */
export function decideShadow(guard: Guard, request: Request): Decision | undefined {
  return guard.shadow === undefined ? undefined : answer(guard.shadow, request)
}

/** The AUDIT rule that wants this request logged. */
export function auditOf(guard: Guard, request: Request): CompiledRule | undefined {
  return guard.audit.size > 0 ? guard.audit.find(request) : undefined
}

/** `namespace/name` of what determined the decision; empty when nothing matched. */
export function policyNameOf({ rule }: Decision): string {
  return rule === undefined ? '' : policyName(rule.policy)
}
