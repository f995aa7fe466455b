// Decisions as lines of the log: a share of them, no more than so many a second, and never what is nobody's
// business: no query, no field of a header, no token and nothing that a token says.
import type { Request } from '../policies/attributes/request.ts'
import { shortened } from '../policies/explain/values.ts'
import type { DecisionLogSpec } from '../proxy-spec/decisions.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Log } from '../runtime/log.ts'
import { type Determinant, type Outcome, undetermined } from './flows.ts'

export interface Logged {
  readonly outcome: Outcome
  readonly request: Pick<Request, 'source' | 'destination' | 'http'>
  readonly by?: Determinant | undefined
  /** why it was rejected */
  readonly reason?: string | undefined
  /** an AUDIT rule wants it logged: it is, whatever the share */
  readonly audit?: Determinant | undefined
  /** what it would be with the policies in shadow mode; it is logged, whatever the share */
  readonly shadow?: (Determinant & { readonly outcome: Outcome }) | undefined
}

export type DecisionLog = (it: Logged) => void

export interface DecisionLogOptions {
  readonly spec: DecisionLogSpec
  readonly log: Log
  readonly clock: Clock
  /** 0 to 1; a seam for tests */
  readonly random?: () => number
}

const second = 1000

const namedBy = ({ policy, rule }: Determinant) => (policy === '' ? {} : { policy, rule })

function lineOf(it: Logged, { paths }: DecisionLogSpec): object {
  const { outcome, request, by = undetermined, reason, audit, shadow } = it
  const { source, destination, http } = request
  const { method, path } = http ?? {}
  return {
    outcome,
    ...(reason === undefined ? {} : { reason }),
    ...(source === undefined ? {} : { source }),
    ...(destination.id === undefined ? {} : { destination: destination.id }),
    ...(destination.port === undefined ? {} : { port: destination.port }),
    ...(method === undefined ? {} : { method: shortened(method) }),
    ...(path === undefined || !paths ? {} : { path: shortened(path) }),
    ...namedBy(by),
    ...(audit === undefined ? {} : { audit: namedBy(audit) }),
    ...(shadow === undefined ? {} : { shadow: { outcome: shadow.outcome, ...namedBy(shadow) } }),
  }
}

/** A share below 1 is written into the line, and so is how many lines were too many since the last one. */
export function createDecisionLog(options: DecisionLogOptions): DecisionLog {
  const { spec, log, clock, random = Math.random } = options
  const { allowed, denied, perSecond } = spec
  let began = clock.monotonic()
  let written = 0
  let dropped = 0

  function isRoom(): boolean {
    const now = clock.monotonic()
    if (now - began >= second) {
      began = now
      written = 0
    }
    if (written >= perSecond) return false
    written++
    return true
  }

  return (it) => {
    const isWanted = it.audit !== undefined || it.shadow !== undefined
    const share = isWanted ? 1 : it.outcome === 'allowed' ? allowed : denied
    if (share === 0 || (share < 1 && random() >= share)) return
    if (!isRoom()) {
      dropped++
      return
    }
    const sampled = share < 1 ? { share } : {}
    const missing = dropped === 0 ? {} : { dropped }
    dropped = 0
    log.info({ ...lineOf(it, spec), ...sampled, ...missing }, 'decision')
  }
}
