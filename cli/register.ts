// How a command declares itself.
import { z } from 'zod'
import { IdentityError } from '../spiffe/errors.ts'
import type { Context, ExitCode } from './context.ts'

export interface Given {
  /** options by camel-cased name, as commander read them */
  readonly values: Readonly<Record<string, unknown>>
  /** in the order of `positional`; those of a last `<name...>` follow one another */
  readonly args: readonly (string | undefined)[]
}

export interface CommandSpec {
  /** absent for `castellan dev` and `castellan call` */
  readonly noun?: string
  readonly verb: string
  readonly about: string
  /** a command line that --help shows, and what it does */
  readonly example?: string
  readonly positional?: readonly string[]
  /** flags, description, default; with a list as its default an option may stand several times */
  readonly options?: readonly (readonly [string, string, (string | boolean | string[])?])[]
  readonly run: (context: Context, given: Given) => Promise<ExitCode>
}

export type Register = (command: CommandSpec) => void

/** The options in the shape that a command wants. Throws ERR_BAD_REQUEST naming the option. */
export function optionsOf<T>(given: Given, schema: z.ZodType<T>): T {
  const result = schema.safeParse(given.values)
  if (result.success) return result.data
  const [issue] = result.error.issues
  const name = String(issue?.path[0] ?? 'options').replace(
    /[A-Z]/g,
    (letter) => `-${letter.toLowerCase()}`,
  )
  throw new IdentityError('ERR_BAD_REQUEST', `--${name}: ${issue?.message}`)
}

export const text = z.string('is missing')
export const optionalText = z.string().optional()
export const texts = z.array(z.string()).optional()
export const flag = z.boolean().optional()
export const whole = z
  .string()
  .regex(/^\d{1,9}$/, 'is not a whole number')
  .transform(Number)
  .optional()

/** A point in time, in milliseconds since the epoch. */
export const moment = z.iso
  .datetime({ offset: true, error: 'is not a time such as 2031-05-17T12:00:00Z' })
  .transform((at) => Date.parse(at))
  .optional()
