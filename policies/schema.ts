// The shape of an AuthorizationPolicy document as its author writes it (authorization.md §4.1). Fields
// that this version does not decide on are unknown keys, and so refused: never accepted and ignored.
import { z } from 'zod'
import { patternProblem } from './pattern.ts'

function pattern(extra: (text: string) => string | undefined = () => undefined) {
  return z.string().superRefine((text, context) => {
    const problem = extra(text) ?? patternProblem(text)
    if (problem !== undefined) context.addIssue({ code: 'custom', message: problem })
  })
}

function principalProblem(text: string): string | undefined {
  return text.includes('://')
    ? 'a principal is written without spiffe://, as trust-domain/path'
    : undefined
}

function methodProblem(text: string): string | undefined {
  return /[a-z]/.test(text)
    ? `methods are compared as sent: ${JSON.stringify(text)} would never match, write ${text.toUpperCase()}`
    : undefined
}

function pathProblem(text: string): string | undefined {
  if (/[{}]/.test(text)) return 'path templates are not supported yet'
  if (/[?#]/.test(text)) return 'paths are compared without query and fragment'
  return /^[/*]/.test(text) ? undefined : 'a path pattern starts with a slash or a star'
}

const port = z.string().superRefine((text, context) => {
  if (!/^(?:0|[1-9]\d{0,4})$/.test(text) || Number(text) > 65_535) {
    context.addIssue({ code: 'custom', message: 'a port is a number from 0 to 65535, in quotes' })
  }
})

const listOf = <T extends z.ZodType>(item: T) =>
  z.array(item).min(1, 'a list that is given has to have an item').max(512)

const source = z.strictObject({ principals: listOf(pattern(principalProblem)) })

const operation = z
  .strictObject({
    methods: listOf(pattern(methodProblem)).optional(),
    paths: listOf(pattern(pathProblem)).optional(),
    ports: listOf(port).optional(),
  })
  .refine((it) => Object.keys(it).length > 0, 'an operation names methods, paths or ports')

export const ruleDocument = z.strictObject({
  from: listOf(z.strictObject({ source })).optional(),
  to: listOf(z.strictObject({ operation })).optional(),
})

const name = z
  .string()
  .regex(/^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/, 'a name has a-z, 0-9, hyphens and dots')

export const policyDocument = z.strictObject({
  apiVersion: z.enum(['security.istio.io/v1', 'security.istio.io/v1beta1']),
  kind: z.literal('AuthorizationPolicy'),
  metadata: z.strictObject({
    name,
    namespace: name.default('default'),
    labels: z.record(z.string(), z.string()).optional(),
    annotations: z
      .record(z.string(), z.string())
      .refine((it) => !('istio.io/dry-run' in it), 'dry runs are not supported yet')
      .optional(),
  }),
  spec: z
    .strictObject({
      action: z.enum(['ALLOW', 'DENY']).default('ALLOW'),
      rules: z.array(ruleDocument).max(512).default([]),
    })
    .refine((it) => it.action === 'ALLOW' || it.rules.length > 0, {
      path: ['rules'],
      message: 'a DENY policy without rules denies nothing',
    }),
})

export type PolicyDocument = z.infer<typeof policyDocument>
export type RuleDocument = PolicyDocument['spec']['rules'][number]
