// The linter: what in a set of policies does not do what it says, each finding with a request that shows it,
// confirmed by the engine.
import { fieldName, readDocuments, refuseAt } from '../documents/yaml.ts'
import { compile } from './compile.ts'
import type { Mesh } from './language/mesh.ts'
import { excuse } from './language/metadata.ts'
import {
  type PolicyDocuments,
  type PolicyText,
  policyDocument,
  readPolicies,
} from './language/read.ts'
import { callerRules } from './lint/callers.ts'
import { ask, type Draft, describeDraft, type Outcome, requestLineOf } from './lint/draft.ts'
import { type Ground, groundOf, type Workload } from './lint/ground.ts'
import { headerRules } from './lint/headers.ts'
import { hostRules } from './lint/hosts.ts'
import { pathRules } from './lint/paths.ts'
import type { LintRule, Severity, Spot, Suspicion } from './lint/rule.ts'
import { scopeRules } from './lint/scopes.ts'
import { shadowingRules } from './lint/shadowing.ts'
import { tcpRules } from './lint/tcp.ts'
import { timeRules } from './lint/times.ts'
import { tokenRules } from './lint/tokens.ts'
import { valueRules } from './lint/values.ts'

export const lintRules: readonly LintRule[] = [
  ...callerRules,
  ...pathRules,
  ...hostRules,
  ...tcpRules,
  ...tokenRules,
  ...headerRules,
  ...valueRules,
  ...shadowingRules,
  ...scopeRules,
  ...timeRules,
]

/** A request that shows what a finding says, and what the engine answers. */
export interface Witness {
  /** in the form of the corpus of policies */
  readonly request: object
  readonly decision: Outcome['decision']
  readonly status?: number
  /** namespace/name */
  readonly policy?: string
  readonly rule?: number
  /** RFC 3339; absent when it is so now */
  readonly at?: string
  /** one line for people */
  readonly text: string
}

export interface Finding {
  /** of the linter's rule */
  readonly rule: string
  readonly severity: Severity
  readonly file: string
  /** from 1 */
  readonly line: number
  readonly field: string
  /** namespace/name of the document */
  readonly document: string
  readonly says: string
  readonly mend: string
  readonly witness: Witness
}

export interface LintOptions {
  readonly mesh: Mesh
  /** milliseconds since 1970 */
  readonly now: number
  /** milliseconds; what expires within them expires soon. 14 days */
  readonly soon?: number
  readonly workloads?: readonly Workload[] | undefined
  /** rules of this severity alone */
  readonly only?: Severity
}

const twoWeeks = 14 * 24 * 3_600_000
// requests that are tried for one suspicion
const mostWitnesses = 256

type LineOf = (spot: Spot) => number

/** Lines of fields: files are read once more, and only those in which something was found. */
function createLines(texts: readonly PolicyText[]): LineOf {
  const known = new Map<string, ReturnType<typeof readFile>>()
  const readFile = ({ name, text }: PolicyText) =>
    readDocuments(text, name, policyDocument, 'ERR_POLICY')
  return ({ kind, document, path }) => {
    const file = texts.find(({ name }) => name === document.file)
    if (file === undefined) return document.line
    const all = known.get(file.name) ?? readFile(file)
    known.set(file.name, all)
    const found = all.find(
      ({ value }) =>
        value.kind === kind &&
        value.metadata.name === document.name &&
        value.metadata.namespace === document.namespace,
    )
    return found?.lineOf(path) ?? document.line
  }
}

interface Shown {
  readonly draft: Draft
  readonly outcome: Outcome
}

/** Asks the engine at a time of a suspicion's own. */
function askedAt(when: number, { documents, mesh }: Ground): Ground['ask'] {
  const set = compile(documents, { mesh, now: when })
  return (draft) => ask(set, draft, when)
}

/** The first witness that the engine answers as the suspicion says. */
function confirmed({ when, shows, witnesses }: Suspicion, ground: Ground): Shown | undefined {
  const asks = when === undefined ? ground.ask : askedAt(when, ground)
  let tried = 0
  for (const draft of witnesses()) {
    const outcome = asks(draft)
    if (shows(outcome, draft)) return { draft, outcome }
    if (++tried >= mostWitnesses) return undefined
  }
  return undefined
}

function witnessOf({ draft, outcome }: Shown, when: number | undefined): Witness {
  const { decision } = outcome
  const rule = outcome.decision === 'reject' ? undefined : outcome.rule
  const isRefused = decision === 'deny' && !draft.isTcp
  return {
    request: requestLineOf(draft),
    decision,
    ...(outcome.decision === 'reject' ? { status: outcome.rejection.status } : {}),
    ...(isRefused ? { status: 403 } : {}),
    ...(rule === undefined
      ? {}
      : { policy: `${rule.policy.namespace}/${rule.policy.name}`, rule: rule.index }),
    ...(when === undefined ? {} : { at: new Date(when).toISOString() }),
    text: describeDraft(draft, outcome),
  }
}

function findingOf(
  { name, severity, mend }: LintRule,
  { suspicion, shown, lineOf }: { suspicion: Suspicion; shown: Shown; lineOf: LineOf },
): Finding {
  const { at, says, when } = suspicion
  const { namespace, name: its, file } = at.document
  return {
    rule: name,
    severity,
    file,
    line: lineOf(at),
    field: fieldName(at.path),
    document: `${namespace}/${its}`,
    says,
    mend: suspicion.mend ?? mend,
    witness: witnessOf(shown, when),
  }
}

/** Annotation: names of rules that its document is excused from, with commas between. */
function demandKnownRules({ policies, authentications, peers, limits }: PolicyDocuments): void {
  const known = new Set(lintRules.map(({ name }) => name))
  for (const { excused, file, line } of [policies, authentications, peers, limits].flat()) {
    const unknown = excused.find((name) => !known.has(name))
    if (unknown === undefined) continue
    const problem = `${JSON.stringify(unknown)} is no rule of the linter: ${[...known].join(', ')}`
    refuseAt(file, 'ERR_POLICY', [{ line, path: ['metadata', 'annotations', excuse], problem }])
  }
}

/**
 * The findings in documents that were read from `texts`, in no order; undefined stands between them for work
 * that found nothing, so that others may have their turn. Throws ERR_POLICY for an excuse from no known rule.
 */
export function* findingsIn(
  documents: PolicyDocuments,
  texts: readonly PolicyText[],
  { mesh, now, soon = twoWeeks, workloads, only }: LintOptions,
): Generator<Finding | undefined, void, void> {
  demandKnownRules(documents)
  const ground = groundOf(documents, { mesh, now, soon, workloads })
  const lineOf = createLines(texts)
  for (const rule of lintRules) {
    if (only !== undefined && rule.severity !== only) continue
    yield undefined
    for (const suspicion of rule.suspect(ground)) {
      if (suspicion.at.document.excused.includes(rule.name)) continue
      const shown = confirmed(suspicion, ground)
      yield shown === undefined ? undefined : findingOf(rule, { suspicion, shown, lineOf })
    }
  }
}

/** Throws ERR_POLICY for files that cannot be read. Findings come in the order of their places. */
export function lint(texts: readonly PolicyText[], options: LintOptions): readonly Finding[] {
  const order = new Map(texts.map(({ name }, i) => [name, i]))
  return [...findingsIn(readPolicies(texts), texts, options)]
    .filter((it) => it !== undefined)
    .sort(
      (one, other) =>
        (order.get(one.file) ?? 0) - (order.get(other.file) ?? 0) || one.line - other.line,
    )
}
