// Policies as they come into force: one span at the authority, and its context for the agents, whose spans say when
// each of their nodes decides with them.
import type { Clock } from '../runtime/clock.ts'
import type { Tracer } from '../runtime/tracing/span.ts'
import { traceparentOf } from '../runtime/tracing/trace-context.ts'
import type { StoredPolicies } from './store/model.ts'

export interface PolicyTraces {
  /** Writes what comes after `before`. */
  during(before: number, write: () => Promise<StoredPolicies>): Promise<StoredPolicies>
  /** For agents that are told `version` now; empty when that is not news, or nobody traces. */
  of(version: number): string
}

/** milliseconds: whoever is told of it later has not waited for it */
const news = 60_000

export function createPolicyTraces(tracer: Tracer, clock: Clock): PolicyTraces {
  let last: { readonly after: number; readonly at: number; readonly text: string } | undefined
  return {
    during: (before, write) =>
      tracer.span('policies.apply', {}, async (span) => {
        // first: agents may be told before the store has answered here
        if (tracer.isOn)
          last = { after: before, at: clock.monotonic(), text: traceparentOf(span.context) }
        const stored = await write()
        span.set({ 'castellan.policy.version': stored.version })
        return stored
      }),
    of(version) {
      if (last === undefined || version <= last.after) return ''
      return clock.monotonic() - last.at < news ? last.text : ''
    },
  }
}
