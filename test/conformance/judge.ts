// What the evidence says of each line: passed, failed, or not applicable with the reason.
import type { Line } from './checklist.ts'

/** What one test or check found out about one line. */
export interface Evidence {
  readonly id: string
  /** the name of the test or check */
  readonly by: string
  readonly outcome: 'passed' | 'failed' | 'not applicable'
  /** of a failure, or why it is not applicable */
  readonly reason?: string
}

export type Verdict =
  | { readonly kind: 'passed'; readonly line: Line; readonly by: number }
  | { readonly kind: 'failed'; readonly line: Line; readonly reason: string }
  | { readonly kind: 'not applicable'; readonly line: Line; readonly reason: string }

function judgeLine(line: Line, found: readonly Evidence[], unseen: string | undefined): Verdict {
  const of = (outcome: Evidence['outcome']) => found.filter((it) => it.outcome === outcome)
  const failed = of('failed')
  if (failed.length > 0) {
    const reasons = failed.map(({ by, reason }) => `${by}: ${reason ?? 'it failed'}`)
    return { kind: 'failed', line, reason: reasons.join('; ') }
  }
  const passed = of('passed').length
  if (passed > 0) return { kind: 'passed', line, by: passed }
  const reasons = of('not applicable').map(({ reason }) => reason)
  const [reason] = [...reasons, unseen ?? line.notApplicable].filter((it) => it !== undefined)
  return reason === undefined
    ? { kind: 'failed', line, reason: 'no test names it' }
    : { kind: 'not applicable', line, reason }
}

/**
 * One verdict per line: it passes when somebody proves it and nobody refutes it. `unseen` is what is said of a line
 * that nobody looked at; without it the checklist has to say why, or the line fails.
 */
export function judge(
  lines: readonly Line[],
  evidence: readonly Evidence[],
  unseen?: string,
): readonly Verdict[] {
  const byId = Map.groupBy(evidence, ({ id }) => id)
  return lines.map((line) => judgeLine(line, byId.get(line.id) ?? [], unseen))
}
