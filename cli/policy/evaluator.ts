// What decides cases offline: a set of policies, the parser of the embedded proxy, the real clock.

import { createTally } from '../../decisions/tally.ts'
import type { Evaluator } from '../../policies/cases/evaluate.ts'
import type { PolicySet } from '../../policies/compile.ts'
import { defaultLimits } from '../../proxy/limits.ts'
import { createByteReader } from '../../proxy/read-bytes.ts'
import { systemClock } from '../../runtime/clock.ts'
import { createLog } from '../../runtime/log.ts'

/** Disposing ends the parser. */
export function createEvaluator(set: PolicySet): Evaluator & Disposable {
  const reader = createByteReader({
    limits: defaultLimits,
    log: createLog({ name: 'policy', level: 'silent' }),
    tally: createTally(systemClock),
  })
  return {
    set,
    readBytes: reader.read,
    now: () => systemClock.now(),
    [Symbol.dispose]: () => reader[Symbol.dispose](),
  }
}
