// The status of one item in a batch answer.
import type { Logger } from 'pino'
import { IdentityError, meaningOf } from '../../spiffe/errors.ts'

export const ok = { code: 0, message: 'OK' } as const

/** The item's error as gRPC code and message; what is no IdentityError is logged, not told. */
export function statusOfItem(error: unknown, log: Logger): { code: number; message: string } {
  if (error instanceof IdentityError)
    return { code: meaningOf(error.code).grpc, message: error.message }
  log.error({ err: error }, 'a batch item failed')
  return { code: 13, message: 'internal error' }
}
