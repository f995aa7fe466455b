// The status of one item in a batch answer.
import type { Logger } from 'pino'
import { IdentityError, meaningOf } from '../../spiffe/errors.ts'
import { badRequest } from '../wire.ts'

const largestBatch = 1000

/** Throws ERR_BAD_REQUEST for a batch that is too long to be looked at. */
export function bounded<T>(items: readonly T[], field: string, most = largestBatch): readonly T[] {
  if (items.length > most) badRequest([{ field, problem: `more than ${most} items` }])
  return items
}

export interface ItemStatus {
  readonly code: number
  readonly message: string
}

export const ok = { code: 0, message: 'OK' } as const

/** The item's error as gRPC code and message; what is no IdentityError is logged, not told. */
export function statusOfItem(error: unknown, log: Logger): ItemStatus {
  if (error instanceof IdentityError)
    return { code: meaningOf(error.code).grpc, message: error.message }
  log.error({ err: error }, 'a batch item failed')
  return { code: 13, message: 'internal error' }
}

export interface Batch {
  /** the field that holds the items, for errors */
  readonly field: string
  readonly log: Logger
}

/**
 * The results of a batch, in the order of its items: each has a status of its own, and what `one` gives.
 * Throws ERR_BAD_REQUEST for a batch that is too long.
 */
export async function batch<T, R extends object>(
  items: readonly T[],
  { field, log }: Batch,
  one: (item: T, at: string) => Promise<R>,
): Promise<(({ readonly status: ItemStatus } & R) | { readonly status: ItemStatus })[]> {
  const run = async (item: T, i: number) => {
    try {
      return { status: ok, ...(await one(item, `${field}[${i}]`)) }
    } catch (error) {
      return { status: statusOfItem(error, log) }
    }
  }
  return Promise.all(bounded(items, field).map(run))
}
