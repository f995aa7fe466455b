// The smallest change that flips a decision: tried one after the other, and verified by deciding again.
import type { Request } from '../attributes/request.ts'
import { compile, type PolicySet } from '../compile.ts'
import { type Decision, decide } from '../decide.ts'
import type { Policy } from '../language/policy.ts'
import { type CompiledRule, compileRule, ruleMatches } from '../rules/rule.ts'
import { candidates } from './candidates.ts'
import { apply, type Change, type Edit } from './edit.ts'
import { nearMisses } from './near.ts'

// DENY rules that match the same request are taken on one after the other
const mostSteps = 6
const mostNear = 5

export interface Asked {
  readonly set: PolicySet
  readonly request: Request
  /** those that speak of the destination */
  readonly policies: readonly Policy[]
}

/** What has expired in the set has expired here too. */
function timeOf({ changesAt }: PolicySet): number {
  return changesAt === undefined ? Number.POSITIVE_INFINITY : changesAt - 1
}

function decideWith({ set, request }: Asked, policies: readonly Policy[]): Decision {
  const documents = { ...set.documents, policies }
  return decide(compile(documents, { mesh: set.mesh, now: timeOf(set) }), request)
}

/** Those that decide at present; an expired one allows and denies nothing. */
export function inForce({ set, policies }: Asked): readonly Policy[] {
  const now = timeOf(set)
  return policies.filter(
    ({ expires, isShadow }) => !isShadow && (expires === undefined || expires > now),
  )
}

const isSamePolicy = (one: Policy, other: Policy) =>
  one.name === other.name && one.namespace === other.namespace

/** Whether a rule still matches after a change; one that was taken away does not. */
function stillMatches({ policy, index, mesh }: CompiledRule, request: Request, change: Change) {
  const same = change.policies.find((it) => isSamePolicy(it, policy))
  if (same === undefined || same.rules.length !== policy.rules.length) return false
  return ruleMatches(compileRule(same, index, mesh), request)
}

/** Cheaper than to decide again: a wider ALLOW rule has to match at least. */
function isWorthTrying({ edits, policies }: Change, { set, request }: Asked): boolean {
  return edits.every((edit) => {
    if (edit.do === 'create' || edit.policy.action !== 'ALLOW' || edit.do === 'drop') return true
    const [, , index] = edit.path
    const changed = policies.find((it) => isSamePolicy(it, edit.policy))
    if (changed === undefined || typeof index !== 'number') return true
    return ruleMatches(compileRule(changed, index, set.mesh), request)
  })
}

interface Step {
  readonly change: Change
  readonly decision: Decision
}

/** The first change that flips the decision; or else the first that takes away what determined it. */
function nextStep(asked: Asked, decision: Decision): Step | undefined {
  const { set, request, policies } = asked
  const isOpen = !decision.allow && decision.rule === undefined
  const near = isOpen ? nearMisses(inForce(asked), request, set.mesh).slice(0, mostNear) : []
  let partial: Step | undefined
  for (const edits of candidates({ decision, near }, request, set.mesh)) {
    const change = apply(policies, edits)
    if (change === undefined || (isOpen && !isWorthTrying(change, asked))) continue
    const made = decideWith(asked, change.policies)
    if (made.allow !== decision.allow) return { change, decision: made }
    const { rule } = decision
    if (partial === undefined && rule !== undefined && !stillMatches(rule, request, change)) {
      partial = { change, decision: made }
    }
  }
  return partial
}

/** Edits, one after the other, that turn the decision round; undefined when none were found. */
export function flip(asked: Asked, from: Decision): readonly Edit[] | undefined {
  const done: Edit[] = []
  let { policies } = asked
  let decision = from
  for (let step = 0; step < mostSteps; step++) {
    const next = nextStep({ ...asked, policies }, decision)
    if (next === undefined) return undefined
    done.push(...next.change.edits)
    if (next.decision.allow !== from.allow) return done
    policies = next.change.policies
    decision = next.decision
  }
  return undefined
}
