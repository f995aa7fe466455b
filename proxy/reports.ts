// What the sidecar tells its agent, made beside the path of requests: counts, explained denials, vitals.
import { setImmediate } from 'node:timers/promises'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { policyNameOf } from '../policies/decide.ts'
import { explainDecision } from '../policies/explain.ts'
import type {
  DecisionCountsSchema,
  DenialSchema,
  SidecarReportSchema,
  VitalsSchema,
} from '../proto/gen/castellan/workload/v1/sidecar_pb.js'
import type { Identities } from './identity.ts'
import type { Counts, KeptDenial, Tally } from './tally.ts'

export type Report = MessageInitShape<typeof SidecarReportSchema>
export type DecisionCounts = MessageInitShape<typeof DecisionCountsSchema> & {
  readonly denials: readonly Denial[]
}
type Denial = MessageInitShape<typeof DenialSchema>
type Vitals = MessageInitShape<typeof VitalsSchema>

function denialOf({ at, policies, request, decision }: KeptDenial): Denial {
  const { source = '', destination, http } = request
  return {
    at: BigInt(at),
    source,
    destination: destination.id,
    port: destination.port,
    method: http?.method ?? '',
    path: http?.path ?? '',
    policy: policyNameOf(decision),
    rule: decision.rule?.index ?? 0,
    ...explainDecision(policies, request, decision),
  }
}

/** What makes two denials of one report the same: an explanation compiles policies, so it is made once. */
function keyOf({ request, policies }: KeptDenial, versions: Map<object, number>): string {
  if (!versions.has(policies)) versions.set(policies, versions.size)
  const { source, destination, http } = request
  return [
    versions.get(policies),
    source,
    destination.id,
    destination.port,
    http?.method,
    http?.path,
  ]
    .map(String)
    .join(' ')
}

export async function explainCounts(counts: Counts): Promise<DecisionCounts> {
  const { allowed, denied, denials } = counts
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
  return { allowed: BigInt(allowed), denied: BigInt(denied), denials: whole }
}

/** Undefined while there is no identity to speak of. */
export function vitalsReport(identities: Identities, tally: Tally): Report | undefined {
  const svid = identities.current()?.svid
  if (svid === undefined) return undefined
  const value: Vitals = {
    serial: svid.serial,
    notAfter: BigInt(svid.notAfter),
    rotations: BigInt(identities.rotations),
    failed: BigInt(tally.failures),
  }
  return { report: { case: 'vitals', value } }
}
