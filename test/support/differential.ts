// The engine and the oracle side by side: the same policies, mesh and requests for both, and what they
// answer differently.
import fc from 'fast-check'
import { type Answer, answerLine, type Evaluator } from '../../policies/cases/evaluate.ts'
import { compile } from '../../policies/compile.ts'
import { type Mesh, meshDocument, type Profile } from '../../policies/language/mesh.ts'
import { readPolicies } from '../../policies/language/read.ts'
import { type OracleMesh, type OracleRequest, oracleDecide } from './oracle/decide.ts'
import { documentsAbout, mesh, subjects, textOf } from './random-policies.ts'
import { requestAbout } from './random-requests.ts'

export interface Scenario {
  readonly mesh: OracleMesh
  readonly documents: readonly unknown[]
  readonly requests: readonly OracleRequest[]
}

export interface Difference {
  readonly request: OracleRequest
  readonly engine: string
  readonly oracle: string
}

/** How often each decision was compared, and how often a rule was named as its reason. */
export type Counts = Map<string, number>

export const meshOf = (it: OracleMesh, profile: Profile): Mesh => ({
  profile,
  ...meshDocument.parse(it),
})

export function evaluatorOf(list: readonly unknown[], its: Mesh): Evaluator {
  const files = [{ name: 'random.yaml', text: textOf(list) }]
  return {
    set: compile(readPolicies(files), { mesh: its }),
    readBytes: () => Promise.reject(new Error('no bytes are asked about here')),
    now: () => 0,
  }
}

/** What the engine answers to one request, the same way as `castellan policy eval`. */
export function answerOf(asked: OracleRequest, evaluator: Evaluator, known = new Map()): Answer {
  const answer = answerLine(JSON.stringify(asked), evaluator, known)
  if (answer instanceof Promise) throw new Error('no bytes are asked about here')
  return answer
}

const shown = ({ decision, policy, rule, reason }: Answer) =>
  `${decision} ${policy === undefined ? '' : `${policy}#${rule}`} (${reason})`

/** The decisions that differ, or whose rule the oracle does not know as one that determined it. */
export function differences(it: Scenario, profile: Profile, counts: Counts): Difference[] {
  const evaluator = evaluatorOf(it.documents, meshOf(it.mesh, profile))
  const known = new Map()
  return it.requests.flatMap((asked) => {
    const answer = answerOf(asked, evaluator, known)
    const wanted = oracleDecide(it.documents, it.mesh, profile, asked)
    const rule = answer.policy === undefined ? undefined : `${answer.policy}#${answer.rule}`
    const key = `${answer.decision}${rule === undefined ? '' : ' by a rule'}`
    counts.set(key, (counts.get(key) ?? 0) + 1)
    const isNamed =
      rule === undefined ? wanted.matching.length === 0 : wanted.matching.includes(rule)
    if (answer.decision === wanted.decision && isNamed) return []
    const oracle = `${wanted.decision} ${wanted.matching.join(' ')}`
    return [{ request: asked, engine: shown(answer), oracle }]
  })
}

const scenario: fc.Arbitrary<Scenario> = fc.oneof(
  ...subjects.map((subject) =>
    fc.record({
      mesh,
      documents: documentsAbout[subject],
      requests: fc.array(requestAbout[subject], { maxLength: 300, size: 'max' }),
    }),
  ),
)

export interface Compared {
  readonly pairs: number
  readonly counts: Counts
  /** the smallest case that was found to differ; undefined when all were decided alike */
  readonly failure: string | undefined
}

const setsAtOnce = 10

/** Compares at least `pairs` decisions, unless one of them differs. */
export function compareRandomly(profile: Profile, pairs: number, firstSeed: number): Compared {
  const counts: Counts = new Map()
  let compared = 0
  const property = fc.property(scenario, (it) => {
    const [found] = differences(it, profile, counts)
    compared += it.requests.length
    if (found !== undefined) throw new Error(`${found.engine}, the oracle ${found.oracle}`)
  })
  for (let seed = firstSeed; compared < pairs; seed++) {
    const result = fc.check(property, { seed, numRuns: setsAtOnce })
    if (!result.failed) continue
    const [smallest] = result.counterexample ?? []
    const failure = `seed ${seed}: ${String(result.errorInstance)}: ${JSON.stringify(smallest)}`
    return { pairs: compared, counts, failure }
  }
  return { pairs: compared, counts, failure: undefined }
}
