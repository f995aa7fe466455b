// castellan policy check: what policies do not do as they say, each finding with a request that shows it.
import { z } from 'zod'
import { type Finding, lint } from '../../policies/lint.ts'
import { systemClock } from '../../runtime/clock.ts'
import { answer, type ExitCode } from '../context.ts'
import { createInput } from '../input.ts'
import { readMesh, readPolicyTexts } from '../policy/files.ts'
import { givenPolicies, policyOptions } from '../policy/given.ts'
import { readWorkloads } from '../policy/workloads.ts'
import { optionalText, optionsOf, type Register } from '../register.ts'

const day = 24 * 3_600_000

const options = givenPolicies.extend({
  workloads: optionalText,
  failOn: z.enum(['error', 'warning'], 'is error or warning'),
  soon: z
    .string()
    .regex(/^\d{1,4}$/, 'is a number of days')
    .transform((days) => Number(days) * day),
})

function findingText({ file, line, field, severity, says, rule, mend, witness }: Finding): string {
  const when = witness.at === undefined ? '' : ` (asked at ${witness.at})`
  return [
    `${file}:${line} ${field}: ${severity}: ${says} [${rule}]`,
    `  mend: ${mend}`,
    `  witness: ${witness.text}${when}`,
    `  request: ${JSON.stringify(witness.request)}`,
  ].join('\n')
}

const counted = (count: number, what: string) => `${count} ${what}${count === 1 ? '' : 's'}`

export function policyCheckCommand(register: Register): void {
  register({
    noun: 'policy',
    verb: 'check',
    about:
      'What policies do not do as they say, offline: each finding with a request that shows it. Exit code 1 with errors.',
    example:
      'castellan policy check --policies policies/ --profile istio --mesh mesh.yaml --fail-on warning',
    options: [
      ...policyOptions,
      ['--workloads <file>', 'which workloads there are: id, namespace, labels, tcp ports'],
      ['--fail-on <severity>', 'error or warning: what makes the exit code 1', 'error'],
      ['--soon <days>', 'what expires within them expires soon', '14'],
    ],
    async run(context, given): Promise<ExitCode> {
      const { policies, profile, mesh, workloads, failOn, soon } = optionsOf(given, options)
      const read = createInput(context)
      const known =
        workloads === undefined ? undefined : readWorkloads(await read(workloads), workloads)
      const findings = lint(readPolicyTexts(policies), {
        mesh: readMesh(mesh, profile),
        now: systemClock.now(),
        soon,
        workloads: known,
      })
      const errors = findings.filter(({ severity }) => severity === 'error').length
      const warnings = findings.length - errors
      answer(context, { errors, warnings, findings }, () =>
        [
          ...findings.map(findingText),
          `${counted(errors, 'error')}, ${counted(warnings, 'warning')}`,
        ].join('\n'),
      )
      return errors > 0 || (failOn === 'warning' && warnings > 0) ? 1 : 0
    },
  })
}
