// Configuration: one YAML file per program, one schema, unknown keys refused, read once.
import { readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { z } from 'zod'
import { readDocuments, refuseAt } from '../documents/yaml.ts'
import { explain, IdentityError } from '../spiffe/errors.ts'
import { errnoOf } from './errno.ts'

/** Reads and checks `file`. Throws ERR_CONFIG naming file, line and field of every problem. */
export function loadConfig<T>(file: string, schema: z.ZodType<T>): T {
  return parseConfig(readText(file), file, schema)
}

/** The same for a text that is at hand; `file` names it in errors. */
export function parseConfig<T>(text: string, file: string, schema: z.ZodType<T>): T {
  const [document, ...more] = readDocuments(text, file, schema, 'ERR_CONFIG')
  if (document === undefined || more.length > 0) {
    const problem = document === undefined ? 'the file is empty' : 'more than one document'
    return refuseAt(file, 'ERR_CONFIG', [{ line: 1, path: [], problem }])
  }
  return document.value
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (cause) {
    throw new IdentityError('ERR_CONFIG', `cannot read ${file} (${errnoOf(cause)})`, { cause })
  }
}

/** A text that `parse` reads, or its message as the problem. */
export function parsedBy<T>(parse: (text: string) => T) {
  return z.string().transform((text, context) => {
    try {
      return parse(text)
    } catch (error) {
      context.addIssue({ code: 'custom', message: explain(error) })
      return z.NEVER
    }
  })
}

const units = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const
const isUnit = (unit: string): unit is keyof typeof units => unit in units

/** `90s`, `5m`, `1h`, `7d`; the value is in milliseconds. */
export const duration = z.string().transform((text, context) => {
  const [, amount, unit = ''] = /^(\d{1,6})(ms|[smhd])$/.exec(text) ?? []
  if (amount === undefined || !isUnit(unit)) {
    context.addIssue({
      code: 'custom',
      message: 'a duration is a number and one of ms, s, m, h, d, such as 90s or 1h',
    })
    return z.NEVER
  }
  return Number(amount) * units[unit]
})

export interface Address {
  readonly host: string
  readonly port: number
}

/** `host:port` or `[v6]:port`. */
export const address = z.string().transform((text, context): Address => {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+)):(\d{1,5})$/.exec(text)
  const port = Number(match?.[3])
  if (match === null || port > 65_535) {
    context.addIssue({ code: 'custom', message: 'an address is host:port, such as 127.0.0.1:8081' })
    return z.NEVER
  }
  return { host: match[1] ?? match[2] ?? '', port }
})

export function addressText({ host, port }: Address): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}

/** A schema of paths that are relative to the folder of the configuration file. */
export function pathRelativeTo(file: string) {
  return z
    .string()
    .min(1, 'a path is not empty')
    .transform((path) => resolve(dirname(file), path))
}
