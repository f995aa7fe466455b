// castellan policy test: cases kept beside policies, and which rules they reach.
import { existsSync } from 'node:fs'
import { z } from 'zod'
import {
  type Explained,
  explainEvaluated,
  explanationText,
} from '../../policies/cases/explained.ts'
import { type CaseFile, readCaseFile } from '../../policies/cases/file.ts'
import {
  expectedText,
  type Failure,
  runSuite,
  type SuiteResult,
} from '../../policies/cases/suite.ts'
import { compile, type PolicySet } from '../../policies/compile.ts'
import type { Mesh, Profile } from '../../policies/language/mesh.ts'
import { readPolicies } from '../../policies/language/read.ts'
import { systemClock } from '../../runtime/clock.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import { answer, type Context, type ExitCode } from '../context.ts'
import { createInput } from '../input.ts'
import { createEvaluator } from '../policy/evaluator.ts'
import { findCaseFiles, readMesh, readPolicyTexts } from '../policy/files.ts'
import { readKeyFiles } from '../policy/key-files.ts'
import { optionalText, optionsOf, type Register } from '../register.ts'

const options = z.object({
  policies: z.array(z.string()),
  profile: z.enum(['strict', 'istio'], 'is strict or istio').optional(),
  mesh: optionalText,
})

type Options = z.infer<typeof options>

function meshOf({ mesh }: CaseFile, given: string | undefined, profile: Profile): Mesh {
  if (given !== undefined || mesh === undefined || typeof mesh === 'string') {
    return readMesh(given ?? (typeof mesh === 'string' ? mesh : undefined), profile)
  }
  return { profile, ...mesh }
}

/** What is named on the command line outranks what the file says. */
async function setFor(file: CaseFile, given: Options, context: Context): Promise<PolicySet> {
  const { policies, mesh } = given
  const profile = given.profile ?? file.profile ?? 'strict'
  const names = policies.length > 0 ? policies : file.policies
  if (names.length === 0) {
    const how = 'say policies: in the file, or --policies'
    throw new IdentityError('ERR_BAD_REQUEST', `${file.file}: which policies? ${how}`)
  }
  const documents = readPolicies(readPolicyTexts(names))
  const jwks = await readKeyFiles(documents, context)
  return compile(documents, { mesh: meshOf(file, mesh, profile), now: systemClock.now(), jwks })
}

type ExplainedFailure = Omit<Failure, 'evaluated'> & { readonly explanation: Explained }
type Result = Omit<SuiteResult, 'failures'> & { readonly failures: readonly ExplainedFailure[] }

async function runFile(name: string, given: Options, context: Context): Promise<Result> {
  const file = readCaseFile(name, await createInput(context)(name), existsSync)
  const set = await setFor(file, given, context)
  using evaluator = createEvaluator(set)
  const result = await runSuite(file, evaluator)
  const failures = result.failures.map(({ evaluated, ...failure }) => ({
    ...failure,
    explanation: explainEvaluated(set, evaluated),
  }))
  return { ...result, failures }
}

const indented = (text: string) => text.replace(/^/gm, '    ')

function failureText({ file, line, name, expected, explanation }: ExplainedFailure): string {
  return [
    `${file}:${line} ${name}: expected ${expectedText(expected)}`,
    indented(explanationText(explanation)),
  ].join('\n')
}

function suiteText({ file, profile, cases, skipped, failures, rules, uncovered }: Result) {
  const left = skipped === 0 ? '' : `, ${skipped} of another profile`
  return [
    ...failures.map(failureText),
    ...uncovered.map(({ at, policy, rule }) => `${at} ${policy}, rule ${rule}: no case matches it`),
    `${file} (${profile}): ${cases - failures.length} of ${cases} cases as expected${left}; ${rules - uncovered.length} of ${rules} rules matched by a case`,
  ].join('\n')
}

export function policyTestCommand(register: Register): void {
  register({
    noun: 'policy',
    verb: 'test',
    about:
      'Runs the cases kept beside policies (*.cases.yaml, *.cases.jsonl), offline; explains what is not as expected. Exit code 1 then.',
    example: 'castellan policy test policies/',
    positional: ['[path...]'],
    options: [
      ['--policies <path...>', 'instead of those that the cases name', []],
      ['--profile <profile>', 'strict or istio, instead of that of the cases'],
      ['--mesh <file>', 'instead of that of the cases'],
    ],
    async run(context, given): Promise<ExitCode> {
      const wanted = optionsOf(given, options)
      const names = given.args.flatMap((name) => name ?? [])
      const suites: Result[] = []
      for (const file of findCaseFiles(names.length === 0 ? ['.'] : names)) {
        suites.push(await runFile(file, wanted, context))
      }
      const failed = suites.reduce((sum, { failures }) => sum + failures.length, 0)
      const cases = suites.reduce((sum, it) => sum + it.cases, 0)
      answer(context, { cases, failed, suites }, () => suites.map(suiteText).join('\n'))
      return failed > 0 ? 1 : 0
    },
  })
}
