// How far a policy version has come: Policies/WatchEnforcement, and what agents say about it.
import type { MessageInitShape } from '@bufbuild/protobuf'
import type { PoliciesInUse } from '../../proto/gen/castellan/control/v1/control_pb.js'
import type { EnforcementStatusSchema } from '../../proto/gen/castellan/policy/v1/policies_pb.js'
import type { Clock } from '../../runtime/clock.ts'
import { createLatest, every } from '../../runtime/lifecycle.ts'
import type { Authority } from '../authority.ts'
import type { KnownPoint } from '../enforcement.ts'
import type { EnforcementPoint } from '../store/said.ts'
import { badRequest } from '../wire.ts'

type Status = MessageInitShape<typeof EnforcementStatusSchema>

const mostPoints = 10_001
const mostLaggards = 1000
const longestId = 2048
const longestRefusal = 1000
/** milliseconds: what other replicas hear is looked up that often */
const look = 500
/** milliseconds between two messages */
const pause = 50

/** Throws ERR_BAD_REQUEST for more than an agent of ours would say. */
export function pointsOf({ points }: PoliciesInUse): EnforcementPoint[] {
  if (points.length > mostPoints)
    badRequest([{ field: 'policies.points', problem: `more than ${mostPoints} of them` }])
  return points.map(({ spiffeId, pid, version, refusal }) => ({
    spiffeId: spiffeId.slice(0, longestId),
    pid,
    version: Number(version),
    refusal: refusal.slice(0, longestRefusal),
  }))
}

function statusOf(version: number, points: readonly KnownPoint[]): Status {
  const laggards = points.filter((point) => point.version < version)
  return {
    version: BigInt(version),
    points: points.length,
    acknowledged: points.length - laggards.length,
    laggards: laggards.slice(0, mostLaggards).map((it) => ({ ...it, version: BigInt(it.version) })),
  }
}

const textOf = (status: Status) =>
  JSON.stringify(status, (_, part: unknown) => (typeof part === 'bigint' ? String(part) : part))

/** One status at once, and one after each change, until `signal` is aborted. */
export async function* watchEnforcement(
  { enforcement, clock }: Pick<Authority, 'enforcement'> & { readonly clock: Clock },
  version: number,
  signal: AbortSignal,
): AsyncGenerator<Status> {
  using wake = createLatest<true>(signal)
  using _ = enforcement.onChange(() => wake.push(true))
  await using __ = every(clock, look, () => wake.push(true))
  let told = ''
  wake.push(true)
  for await (const ___ of wake) {
    const status = statusOf(version, await enforcement.points())
    const text = textOf(status)
    if (text === told) continue
    told = text
    yield status
    await clock.sleep(pause, { signal }).catch(() => {})
  }
  signal.throwIfAborted()
}
