// What the tables share: the database, and changes that become events once they are committed.
import type { Clock } from '../../../runtime/clock.ts'
import type { Database, Transaction } from '../../../runtime/db/database.ts'
import type { Event } from '../model.ts'
import type { EventLog } from './events.ts'

/** Writes an event; returns its cursor. */
export type Emit = (kind: Event['kind'], key: string) => Promise<number>

export interface Session {
  readonly db: Database
  /** of those on one database, the authority that this program is */
  readonly replica: string
  readonly clock: Clock
  /** aborted when the store is closed */
  readonly stopped: AbortSignal
  /** Writes with events; resolves once everybody who follows them in this program has taken them in. */
  change<T>(work: (tx: Transaction, emit: Emit) => Promise<T>): Promise<T>
}

export function createSession(
  parts: Pick<Session, 'db' | 'replica' | 'clock' | 'stopped'>,
  log: EventLog,
): Session {
  const { db } = parts
  return {
    ...parts,
    async change(work) {
      const { value, last } = await db.writeInTurn(async (tx) => {
        let cursor = 0
        const emit: Emit = async (kind, key) => {
          const sql = 'INSERT INTO events (kind, key) VALUES (?, ?) RETURNING cursor'
          cursor = Number((await tx.get(sql, kind, key))?.cursor)
          return cursor
        }
        return { value: await work(tx, emit), last: cursor }
      })
      await log.reached(last)
      return value
    },
  }
}
