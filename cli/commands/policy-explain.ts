// castellan policy explain: one request, its decision, why, and the smallest change that turns it round.
import { z } from 'zod'
import { evaluateCase } from '../../policies/cases/evaluate.ts'
import { explainEvaluated, explanationText } from '../../policies/cases/explained.ts'
import { readCase } from '../../policies/cases/request-line.ts'
import { compile } from '../../policies/compile.ts'
import { readPolicies } from '../../policies/language/read.ts'
import { systemClock } from '../../runtime/clock.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import { answer, type ExitCode } from '../context.ts'
import { createInput, type ReadInput } from '../input.ts'
import { createEvaluator } from '../policy/evaluator.ts'
import { readMesh, readPolicyTexts } from '../policy/files.ts'
import { readKeyFiles } from '../policy/key-files.ts'
import { optionalText, optionsOf, type Register, text } from '../register.ts'

const options = z.object({
  policies: z.array(z.string()).min(1, 'is missing: name a file or a folder'),
  profile: z.enum(['strict', 'istio'], 'is strict or istio'),
  mesh: optionalText,
  request: text,
})

/** JSON as it stands, or the file that has it. */
async function requestText(given: string, read: ReadInput): Promise<string> {
  return given.trimStart().startsWith('{') ? given : await read(given)
}

export function policyExplainCommand(register: Register): void {
  register({
    noun: 'policy',
    verb: 'explain',
    about:
      'Why one request is allowed or denied, offline: what was compared, what came near, and the smallest change that turns it round.',
    example: `castellan policy explain --policies policies/ --request '{"source":{"principal":"spiffe://example.org/ns/shop/sa/web"},"destination":{"namespace":"payments"},"http":{"method":"GET","path":"/payments/1"}}'`,
    options: [
      ['--policies <path...>', 'files, or folders with *.yaml and *.yml', []],
      ['--profile <profile>', 'strict or istio', 'strict'],
      ['--mesh <file>', 'trust domain, aliases, path normalisation and the like'],
      ['--request <json|file>', 'one request, as policy eval reads it; - is standard input'],
    ],
    async run(context, given): Promise<ExitCode> {
      const { policies, profile, mesh, request } = optionsOf(given, options)
      const now = systemClock.now()
      const documents = readPolicies(readPolicyTexts(policies))
      const jwks = await readKeyFiles(documents, context)
      const set = compile(documents, { mesh: readMesh(mesh, profile), now, jwks })
      const line = await requestText(request, createInput(context))
      const it = readCase(line, set.mesh, new Map())
      if ('problem' in it) throw new IdentityError('ERR_BAD_REQUEST', `--request: ${it.problem}`)
      using evaluator = createEvaluator(set)
      const explained = explainEvaluated(set, await evaluateCase(it, evaluator))
      answer(context, explained, () => explanationText(explained))
      return 0
    },
  })
}
