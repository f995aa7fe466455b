// castellan policy explain: one request, its decision, why, and the smallest change that turns it round.
import { evaluateCase } from '../../policies/cases/evaluate.ts'
import { explainEvaluated, explanationText } from '../../policies/cases/explained.ts'
import { readCase } from '../../policies/cases/request-line.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import { answer, type ExitCode } from '../context.ts'
import { createInput, type ReadInput } from '../input.ts'
import { createEvaluator } from '../policy/evaluator.ts'
import { compileGiven, givenPolicies, policyOptions } from '../policy/given.ts'
import { optionsOf, type Register, text } from '../register.ts'

const options = givenPolicies.extend({
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
      ...policyOptions,
      ['--request <json|file>', 'one request, as policy eval reads it; - is standard input'],
    ],
    async run(context, given): Promise<ExitCode> {
      const { request, ...files } = optionsOf(given, options)
      const set = await compileGiven(files, context)
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
