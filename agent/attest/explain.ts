// What can be told of any process of this node, for administrators.
import type { WorkloadAttestation } from './attestor.ts'
import { createDemand, type Entries, everythingAnd } from './demand.ts'
import type { NodeAttestation } from './workload-attestor.ts'

export interface ProcessExplanation extends WorkloadAttestation {
  readonly pid: number
  readonly uid: number
  readonly gid: number
}

export interface ExplainOptions extends NodeAttestation {
  readonly knowledge: Entries
}

/**
 * Everything about the process that has `pid` now, asked for by an entry or not; environments of containers
 * only where an entry asks for them. Throws ERR_NOT_FOUND, ERR_UNAVAILABLE.
 */
export type ExplainProcess = (
  pid: number,
  options: { readonly signal: AbortSignal },
) => Promise<ProcessExplanation>

export function createExplainProcess(options: ExplainOptions): ExplainProcess {
  const { processes, attestor, knowledge } = options
  const demand = createDemand(knowledge)
  return async (pid, { signal }) => {
    using process = processes.open(pid)
    const attestation = await attestor.attest(process, everythingAnd(demand()), { signal })
    return { pid, uid: process.uid, gid: process.gid, ...attestation }
  }
}
