// Counts as they are reported, made beside the path of requests: the newest denials are explained.
import { setImmediate } from 'node:timers/promises'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { policyNameOf } from '../policies/decide.ts'
import { describe, explainDecision } from '../policies/explain.ts'
import { describeLimit } from '../policies/limits.ts'
import {
  type DecisionCountsSchema,
  type DenialSchema,
  Outcome as WireOutcome,
} from '../proto/gen/castellan/workload/v1/sidecar_pb.js'
import type { Flow, Outcome } from './flows.ts'
import type { Counts, KeptDenial } from './tally.ts'

export type DecisionCounts = MessageInitShape<typeof DecisionCountsSchema> & {
  readonly denials: readonly Denial[]
}
type Denial = MessageInitShape<typeof DenialSchema>

/** What determined it, and why. */
function causeOf({ policies, request, decision, exhausted }: KeptDenial) {
  if (exhausted !== undefined) {
    const { limit } = exhausted
    const reason = `${describe(request)}: too often, by ${describeLimit(limit)}`
    return { policy: limit.name, rule: limit.index, reason, remedy: '' }
  }
  const { reason, remedy } = explainDecision(policies, request, decision)
  return { policy: policyNameOf(decision), rule: decision.rule?.index ?? 0, reason, remedy }
}

function denialOf(kept: KeptDenial): Denial {
  const { at, request } = kept
  const { source = '', destination, http } = request
  return {
    at: BigInt(at),
    source,
    destination: destination.id ?? '',
    port: destination.port ?? 0,
    method: http?.method ?? '',
    path: http?.path ?? '',
    ...causeOf(kept),
  }
}

/** What makes two denials of one report the same: an explanation compiles policies, so it is made once. */
function keyOf(
  { request, policies, exhausted }: KeptDenial,
  versions: Map<object, number>,
): string {
  if (!versions.has(policies)) versions.set(policies, versions.size)
  const { source, destination, http } = request
  return [
    versions.get(policies),
    source,
    destination.id,
    destination.port,
    http?.method,
    http?.path,
    exhausted?.limit.key,
  ]
    .map(String)
    .join(' ')
}

const outcomes: Readonly<Record<Outcome, WireOutcome>> = {
  allowed: WireOutcome.ALLOWED,
  denied: WireOutcome.DENIED,
  limited: WireOutcome.LIMITED,
  rejected: WireOutcome.REJECTED,
  audited: WireOutcome.AUDITED,
  wouldDeny: WireOutcome.WOULD_DENY,
  wouldAllow: WireOutcome.WOULD_ALLOW,
}

const flowOf = ({ outcome, count, ...flow }: Flow) => ({
  ...flow,
  outcome: outcomes[outcome],
  count: BigInt(count),
})

export async function explainCounts(counts: Counts): Promise<DecisionCounts> {
  const { allowed, denied, denials, flows } = counts
  const known = new Map<string, Denial>()
  const versions = new Map<object, number>()
  const whole: Denial[] = []
  for (const kept of denials) {
    const key = keyOf(kept, versions)
    const denial = known.get(key) ?? denialOf(kept)
    known.set(key, denial)
    whole.push({ ...denial, at: BigInt(kept.at) })
    // requests go first
    await setImmediate()
  }
  return {
    allowed: BigInt(allowed),
    denied: BigInt(denied),
    denials: whole,
    flows: flows.map(flowOf),
  }
}
