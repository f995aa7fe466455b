// Logs for operators: pino, one JSON line per event, fields instead of sentences, secrets fenced off.
import { type DestinationStream, type Logger, pino } from 'pino'
import { IdentityError } from '../spiffe/errors.ts'

export type Log = Logger

const fenced = ['key', 'token', 'passphrase', 'csr', 'pem', 'privateKey', 'joinToken', 'secret']

/** Only what is safe and useful of an error: code, message, messages of its causes. Never a stack of ours. */
function errorFields(error: unknown): object {
  if (!(error instanceof Error)) return { message: String(error) }
  const code = error instanceof IdentityError ? { code: error.code } : {}
  const cause = error.cause === undefined ? {} : { cause: errorFields(error.cause) }
  const isOurs = error instanceof IdentityError || 'code' in error
  return { ...code, message: error.message, ...(isOurs ? {} : { stack: error.stack }), ...cause }
}

export interface LogOptions {
  /** the program: ca, agent, proxy */
  readonly name: string
  readonly level?: string
  /** standard error by default, so that standard output belongs to answers */
  readonly destination?: DestinationStream
}

export function createLog({
  name,
  level = 'info',
  destination = pino.destination(2),
}: LogOptions): Log {
  return pino(
    {
      name,
      level,
      base: { name },
      timestamp: pino.stdTimeFunctions.isoTime,
      serializers: { err: errorFields },
      redact: { paths: fenced.flatMap((field) => [field, `*.${field}`]), censor: '[redacted]' },
      formatters: { level: (label) => ({ level: label }) },
    },
    destination,
  )
}
