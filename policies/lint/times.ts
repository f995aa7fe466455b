// Policies that decide for a while only, or not at all.
import { compile } from '../compile.ts'
import { decideBy, decideShadow } from '../decide.ts'
import { type Policy, policyName } from '../language/policy.ts'
import { ask, type Draft } from './draft.ts'
import { allowedDrafts, type Ground, strangerAt, whomOf } from './ground.ts'
import { isSameRule, type LintRule, type Spot, type Suspicion } from './rule.ts'
import { samplesOf } from './samples.ts'

const spotOf = (policy: Policy, ...path: readonly string[]): Spot => ({
  kind: 'AuthorizationPolicy',
  document: policy,
  path: ['spec', ...path],
})

const day = (at: number) => new Date(at).toISOString().replace(/T00:00:00.000Z$/, '')

/** Requests that a policy speaks of, such as an ALLOW lets in where there is one. */
function* spokenOf(ground: Ground, policy: Policy): Generator<Draft> {
  const asIs = (draft: Draft) => draft
  const starts =
    policy.action === 'DENY'
      ? [...allowedDrafts(ground, policy, asIs)]
      : [strangerAt(whomOf(ground.mesh, policy), ground.mesh)]
  for (const rule of ground.rulesOf(policy)) {
    for (const start of starts) {
      yield* samplesOf(rule, start)
      yield* samplesOf(rule, { ...start, isTcp: true })
    }
  }
}

interface Ending {
  readonly policy: Policy
  readonly end: number
}

function* endings({ documents }: Ground, action: Policy['action']): Generator<Ending> {
  for (const policy of documents.policies) {
    const { expires: end, isElsewhere, isShadow } = policy
    if (end === undefined || isElsewhere || isShadow || policy.action !== action) continue
    yield { policy, end }
  }
}

/** Requests that the policy decided before it ended. */
function* decidedBefore(ground: Ground, { policy, end }: Ending): Generator<Draft> {
  const before = Math.min(end - 1, ground.now)
  const set = compile(ground.documents, { mesh: ground.mesh, now: before })
  for (const draft of spokenOf(ground, policy)) {
    const outcome = ask(set, draft, before)
    if (outcome.decision !== 'reject' && outcome.rule?.policy === policy) yield draft
  }
}

function* expired(ground: Ground, action: 'ALLOW' | 'DENY'): Generator<Suspicion> {
  for (const ending of endings(ground, action)) {
    const { policy, end } = ending
    if (end > ground.now) continue
    const isDeny = action === 'DENY'
    yield {
      at: spotOf(policy, 'expires'),
      says: `${policyName(policy)} has expired (${day(end)}): ${isDeny ? 'what it denied passes' : 'it allows nothing, and what it allowed is denied'}`,
      witnesses: () => decidedBefore(ground, ending),
      shows: (outcome) => outcome.decision === (isDeny ? 'allow' : 'deny'),
    }
  }
}

function* expiring(ground: Ground): Generator<Suspicion> {
  for (const action of ['ALLOW', 'DENY'] as const) {
    for (const ending of endings(ground, action)) {
      const { policy, end } = ending
      if (end <= ground.now || end > ground.now + ground.soon) continue
      const isDeny = action === 'DENY'
      yield {
        at: spotOf(policy, 'expires'),
        says: `${policyName(policy)} expires soon (${day(end)}): ${isDeny ? 'from then on what it denies passes' : 'from then on what it allows is denied'}`,
        witnesses: () => decidedBefore(ground, ending),
        shows: (outcome) => outcome.decision === (isDeny ? 'allow' : 'deny'),
        when: end,
      }
    }
  }
}

function* onlyWatched(ground: Ground): Generator<Suspicion> {
  for (const policy of ground.documents.policies) {
    if (!policy.isShadow || policy.isElsewhere) continue
    yield {
      at: spotOf(policy),
      says: `${policyName(policy)} is only watched: it ${policy.action === 'DENY' ? 'denies' : 'allows'} nothing`,
      witnesses: () => spokenOf(ground, policy),
      shows(outcome) {
        if (outcome.decision === 'reject') return false
        const would = decideShadow(outcome.guard, outcome.request)
        const does = decideBy(outcome.guard, outcome.request)
        const isIts = ground
          .rulesOf(policy)
          .some((rule) => would !== undefined && isSameRule(would.rule, rule))
        return isIts && would?.allow !== does.allow
      },
    }
  }
}

export const timeRules: readonly LintRule[] = [
  {
    name: 'deny-expired',
    severity: 'error',
    says: 'a DENY that has expired denies nothing any more',
    mend: 'give it another date, or delete it if that was meant',
    suspect: (ground) => expired(ground, 'DENY'),
  },
  {
    name: 'allow-expired',
    severity: 'warning',
    says: 'an ALLOW that has expired allows nothing, but still has everything else denied',
    mend: 'give it another date, or delete it',
    suspect: (ground) => expired(ground, 'ALLOW'),
  },
  {
    name: 'expires-soon',
    severity: 'warning',
    says: 'a policy ends within the next days',
    mend: 'give it another date, or see that nobody needs it then',
    suspect: expiring,
  },
  {
    name: 'only-watched',
    severity: 'warning',
    says: 'a policy in shadow mode is reported, never enforced, and decides otherwise than what is enforced',
    mend: 'enforce it when its reports are as they should be: delete mode: shadow, or the annotation istio.io/dry-run',
    suspect: onlyWatched,
  },
]
