// A file of cases, run: which answers are other than expected, and which rules no case matched.
import { refuseAt } from '../../documents/yaml.ts'
import type { Request } from '../attributes/request.ts'
import type { PolicySet } from '../compile.ts'
import { placeOf } from '../explain/edit.ts'
import type { Profile } from '../language/mesh.ts'
import { policyName } from '../language/policy.ts'
import { type CompiledRule, compileRule, ruleMatches } from '../rules/rule.ts'
import { speaksOf } from '../scope.ts'
import {
  type Answer,
  answerOf,
  badCase,
  type Evaluated,
  type Evaluator,
  evaluateCase,
} from './evaluate.ts'
import type { CaseFile, Expectation, FileCase } from './file.ts'
import { type Destinations, readCase } from './request-line.ts'

export interface Failure {
  readonly file: string
  readonly line: number
  readonly name: string
  readonly expected: Expectation
  readonly got: Omit<Answer, 'id'>
  /** for whoever explains it */
  readonly evaluated: Evaluated
}

/** A rule that no case of the file matched. */
export interface Uncovered {
  /** FILE:LINE */
  readonly at: string
  readonly policy: string
  readonly rule: number
}

export interface SuiteResult {
  readonly file: string
  readonly profile: Profile
  readonly cases: number
  /** cases that say nothing of the profile */
  readonly skipped: number
  readonly failures: readonly Failure[]
  readonly rules: number
  readonly uncovered: readonly Uncovered[]
}

export function expectedText({ decision, status, policy, rule }: Expectation): string {
  return [
    decision.join(' or '),
    status === undefined ? '' : `${status}`,
    policy === undefined ? '' : `by ${policy}`,
    rule === undefined ? '' : `rule ${rule}`,
  ]
    .filter((it) => it !== '')
    .join(' ')
}

function isAsExpected(expected: Expectation, got: Omit<Answer, 'id'>): boolean {
  return (
    expected.decision.includes(got.decision) &&
    (expected.status === undefined || expected.status === got.status) &&
    (expected.policy === undefined || expected.policy === got.policy) &&
    (expected.rule === undefined || expected.rule === got.rule)
  )
}

/** Marks the rules that requests match, whatever the decision was. */
function createCoverage({ documents, mesh }: PolicySet) {
  const rules = documents.policies
    .filter(({ isElsewhere }) => !isElsewhere)
    .flatMap((policy) => policy.rules.map((_, i) => compileRule(policy, i, mesh)))
  const left = new Set<CompiledRule>(rules)
  return {
    size: rules.length,
    see(request: Request) {
      for (const rule of left) {
        if (!speaksOf(rule.policy, request.destination, mesh)) continue
        if (ruleMatches(rule, request)) left.delete(rule)
      }
    },
    uncovered: (): Uncovered[] =>
      [...left].map(({ policy, index }) => ({
        at: placeOf(policy, index),
        policy: policyName(policy),
        rule: index,
      })),
  }
}

/**
 * Every case that says what to expect in the profile of `evaluator`'s mesh. Throws ERR_CONFIG with file, line and
 * field for a case that has no request.
 */
export async function runSuite(
  { file, cases }: CaseFile,
  evaluator: Evaluator,
): Promise<SuiteResult> {
  const { set } = evaluator
  const { profile } = set.mesh
  const known: Destinations = new Map()
  const coverage = createCoverage(set)
  const failures: Failure[] = []

  async function evaluate({ line, path, request }: FileCase): Promise<Evaluated> {
    const it = readCase(request, set.mesh, known)
    if (!('problem' in it)) return await evaluateCase(it, evaluator)
    const { misread } = it
    if (misread === undefined) return badCase(it)
    // a slip of whoever wrote the case, which would pass for a request that is refused
    const place = { line, path: [...path, ...misread.path], problem: misread.problem }
    return refuseAt(file, 'ERR_CONFIG', [place])
  }

  let skipped = 0
  for (const it of cases) {
    const expected = it.expect(profile)
    if (expected === undefined) {
      skipped++
      continue
    }
    await evaluator.takeTurns?.()
    const evaluated = await evaluate(it)
    if (evaluated.kind === 'decided') coverage.see(evaluated.request)
    const { id: _, ...got } = answerOf(null, evaluated)
    if (isAsExpected(expected, got)) continue
    const { name, line } = it
    failures.push({ file, line, name, expected, got, evaluated })
  }
  return {
    file,
    profile,
    cases: cases.length - skipped,
    skipped,
    failures,
    rules: coverage.size,
    uncovered: coverage.uncovered(),
  }
}
