// The long explanation of a decision, made on demand: what determined it, what came near, and the
// smallest change that would flip it, verified by applying it.
import type { Request } from './attributes/request.ts'
import type { PolicySet } from './compile.ts'
import type { Decision } from './decide.ts'
import { type Edit, editText, placeOf } from './explain/edit.ts'
import { type Asked, flip, inForce } from './explain/flip.ts'
import { allowRules, type NearMiss } from './explain/near.ts'
import { shortened } from './explain/values.ts'
import { policyName } from './language/policy.ts'
import { speaksOf } from './scope.ts'

export interface Explanation {
  /** one sentence: what determined the decision */
  readonly reason: string
  /** the smallest change of the policies that would flip it; empty when none was found */
  readonly remedy: string
  /** the same, step by step */
  readonly edits: readonly Edit[]
  /** rules that might have allowed it, the nearest first */
  readonly near: readonly NearMiss[]
}

export function describe({ source, destination, http }: Request): string {
  const who = source ?? 'a peer without identity'
  const { id, namespace, port } = destination
  const whom = id ?? `namespace ${namespace}`
  const tcp = port === undefined ? 'TCP' : `TCP port ${port}`
  const what = http === undefined ? tcp : `${http.method} ${shortened(http.path)}`
  return `${who} → ${whom} ${what}`
}

function whyOf(set: PolicySet, request: Request, decision: Decision): string {
  const { allow, rule } = decision
  if (!allow && decision.before === 'plaintext') {
    return 'denied, plaintext where PeerAuthentication demands mutual TLS'
  }
  if (rule !== undefined) {
    const { policy, index } = rule
    const verb = allow ? 'allowed' : 'denied'
    const what = `${verb} by ${policy.action} policy ${policyName(policy)}, rule ${index} (${placeOf(policy, index)})`
    return policy.action === 'CUSTOM'
      ? `${what}, for which the authorizer ${policy.provider} decides`
      : what
  }
  if (allow) return 'allowed, no ALLOW policy speaks of this destination'
  const { allow: rules, hasAllow } = set.guardOf(request.destination)
  if (rules.size > 0) return `denied, none of ${rules.size} ALLOW rules matches`
  return hasAllow
    ? 'denied, the ALLOW policies of this destination have no rule in force'
    : 'denied, no ALLOW policy speaks of this destination'
}

const mostNear = 5

/** The policies that speak of the destination of a request. */
export function askedOf(set: PolicySet, request: Request): Asked {
  const { mesh, documents } = set
  const policies = documents.policies.filter((it) => speaksOf(it, request.destination, mesh))
  return { set, request, policies }
}

/** ALLOW rules that do not match, the nearest first; none where another one matches. */
export function nearestOf(asked: Asked): readonly NearMiss[] {
  const { request, set } = asked
  const { rules, misses } = allowRules(inForce(asked), request, set.mesh)
  return misses.length < rules ? [] : misses.slice(0, mostNear)
}

/** Without the CUSTOM policies, where their authorizers have consented and another rule decided. */
function afterConsent(asked: Asked, { rule }: Decision): Asked {
  const { set, request, policies } = asked
  const { custom } = set.guardOf(request.destination)
  const isAbout = custom.some((rules) => rules.find(request) !== undefined)
  if (!isAbout || rule?.policy.action === 'CUSTOM') return asked
  return { ...asked, policies: policies.filter(({ action }) => action !== 'CUSTOM') }
}

/** Explains `decision`, which `decide(set, request)` gave, or a decision after consent to its CUSTOM rules. */
export function explainDecision(set: PolicySet, request: Request, decision: Decision): Explanation {
  const asked = afterConsent(askedOf(set, request), decision)
  const edits = flip(asked, decision) ?? []
  return {
    reason: `${describe(request)}: ${whyOf(set, request, decision)}`,
    remedy: edits.map(editText).join('; then '),
    edits,
    near: decision.allow || decision.rule !== undefined ? [] : nearestOf(asked),
  }
}
