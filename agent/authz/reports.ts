// What was decided here, told to the agent's own ledger as sidecars tell it.
import { create } from '@bufbuild/protobuf'
import { explainCounts } from '../../decisions/counts.ts'
import type { Tally } from '../../decisions/tally.ts'
import { DecisionCountsSchema } from '../../proto/gen/castellan/workload/v1/sidecar_pb.js'
import type { Clock } from '../../runtime/clock.ts'
import { createLatest, type Running, run } from '../../runtime/lifecycle.ts'
import type { Ledger } from '../sidecar/ledger.ts'

export interface ReportOptions {
  readonly tally: Tally
  readonly ledger: Pick<Ledger, 'countOwn'>
  readonly clock: Clock
}

/** milliseconds */
const between = 200

export function reportDecisions({ tally, ledger, clock }: ReportOptions): Running {
  return run(async (signal) => {
    using changes = createLatest<true>(signal)
    using _ = tally.subscribe(() => changes.push(true))
    changes.push(true)
    for await (const __ of changes) {
      const counts = tally.take()
      if (counts !== undefined)
        ledger.countOwn(create(DecisionCountsSchema, await explainCounts(counts)))
      await clock.sleep(between, { signal })
    }
  })
}
