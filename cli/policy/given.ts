// The policies that an offline command is given by file, and the profile and the mesh that it reads them by.
import { z } from 'zod'
import { compile, type PolicySet } from '../../policies/compile.ts'
import { readPolicies } from '../../policies/language/read.ts'
import { systemClock } from '../../runtime/clock.ts'
import type { Context } from '../context.ts'
import { type CommandSpec, optionalText } from '../register.ts'
import { readMesh, readPolicyTexts } from './files.ts'
import { readKeyFiles } from './key-files.ts'

export const givenPolicies = z.object({
  policies: z.array(z.string()).min(1, 'is missing: name a file or a folder'),
  profile: z.enum(['strict', 'istio'], 'is strict or istio'),
  mesh: optionalText,
})

export const policyOptions: NonNullable<CommandSpec['options']> = [
  ['--policies <path...>', 'files, or folders with *.yaml and *.yml', []],
  ['--profile <profile>', 'strict or istio', 'strict'],
  ['--mesh <file>', 'trust domain, aliases, path normalisation and the like'],
]

/** With the keys that they name by file, as of now. */
export async function compileGiven(
  { policies, profile, mesh }: z.infer<typeof givenPolicies>,
  context: Context,
): Promise<PolicySet> {
  const documents = readPolicies(readPolicyTexts(policies))
  const jwks = await readKeyFiles(documents, context)
  return compile(documents, { mesh: readMesh(mesh, profile), now: systemClock.now(), jwks })
}
