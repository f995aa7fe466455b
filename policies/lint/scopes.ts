// Policies that speak of no workload.

import { type Policy, policyName } from '../language/policy.ts'
import { hasLabels, speaksOf } from '../scope.ts'
import type { Draft, Outcome, Whom } from './draft.ts'
import { destinationFor, type Ground, strangerAt, type Workload, whomOf } from './ground.ts'
import type { LintRule, Spot, Suspicion } from './rule.ts'
import { samplesOf } from './samples.ts'

const spotOf = (policy: Policy, field?: string): Spot => ({
  kind: 'AuthorizationPolicy',
  document: policy,
  path: field === undefined ? ['spec'] : ['spec', field],
})

/** What the policy says, asked of a workload that it does not speak of. */
function* spokenTo(ground: Ground, policy: Policy, to: Whom): Generator<Draft> {
  const base = strangerAt(to, ground.mesh)
  for (const rule of ground.rulesOf(policy)) yield* samplesOf(rule, base)
  // an ALLOW without rules says something too
  yield base
}

const isNotIts =
  (policy: Policy) =>
  (outcome: Outcome): boolean =>
    outcome.decision !== 'reject' && outcome.rule?.policy !== policy

/** How many of the labels of a policy a workload has, and whether it lives where the policy does. */
function likeness({ namespace, selector = {} }: Policy, workload: Workload): number {
  const labels = Object.entries(selector)
  const same = labels.filter(([name, value]) => hasLabels(workload.labels, { [name]: value }))
  return same.length + (workload.namespace === namespace ? 100 : 0)
}

function* selectsNothing(ground: Ground): Generator<Suspicion> {
  const { workloads, documents, mesh } = ground
  if (workloads === undefined || workloads.length === 0) return
  const known = workloads.map(
    ({ id, namespace, labels }): Whom => ({ namespace, labels, principal: id }),
  )
  for (const policy of documents.policies) {
    if (policy.isElsewhere) continue
    if (known.some((it) => speaksOf(policy, destinationFor(it), mesh))) continue
    const nearest = workloads
      .toSorted((one, other) => likeness(policy, other) - likeness(policy, one))
      .map(({ id, namespace, labels }): Whom => ({ namespace, labels, principal: id }))[0]
    if (nearest === undefined) continue
    yield {
      at: spotOf(policy, policy.targets === undefined ? 'selector' : 'targets'),
      says: `${policyName(policy)} speaks of none of the ${workloads.length} workloads that are known`,
      witnesses: () => spokenTo(ground, policy, nearest),
      shows: isNotIts(policy),
    }
  }
}

function* ofGateways(ground: Ground): Generator<Suspicion> {
  for (const policy of ground.documents.policies) {
    if (!policy.isElsewhere) continue
    const to = whomOf(ground.mesh, policy)
    yield {
      at: spotOf(policy, 'targetRefs'),
      says: `${policyName(policy)} has targetRefs: it speaks of a gateway or a service, and of no workload here`,
      witnesses: () => spokenTo(ground, policy, to),
      shows: isNotIts(policy),
    }
  }
}

export const scopeRules: readonly LintRule[] = [
  {
    name: 'selects-nothing',
    severity: 'error',
    says: 'no known workload has the namespace, labels or identity that a policy speaks of (with --workloads)',
    mend: 'correct the selector, the namespace or the targets',
    suspect: selectsNothing,
  },
  {
    name: 'of-no-workload',
    severity: 'warning',
    says: 'a policy with targetRefs applies to gateways and services, and to no workload here',
    mend: 'write selector (or targets) instead of targetRefs, if workloads are meant',
    suspect: ofGateways,
  },
]
