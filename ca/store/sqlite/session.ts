// What the tables share: the database, and changes that become events once they are committed.
import type { Database, Transaction } from '../../../runtime/db/sqlite.ts'
import { createTopic, type Topic } from '../../../runtime/lifecycle.ts'
import type { Event } from '../store.ts'

/** Writes an event; returns its cursor. */
export type Emit = (kind: Event['kind'], key: string) => number

export interface Session {
  readonly db: Database
  readonly topic: Topic<readonly Event[]>
  /** Writes, then tells the events, in the order of their cursors. */
  change<T>(work: (tx: Transaction, emit: Emit) => T): Promise<T>
}

export function createSession(db: Database): Session {
  const topic = createTopic<readonly Event[]>()
  return {
    db,
    topic,
    async change(work) {
      const { value, events } = await db.write((tx) => {
        const told: Event[] = []
        const emit: Emit = (kind, key) => {
          const { id } = tx.run('INSERT INTO events (kind, key) VALUES (?, ?)', kind, key)
          told.push({ cursor: id, kind, key })
          return id
        }
        return { value: work(tx, emit), events: told }
      })
      if (events.length > 0) topic.publish(events)
      return value
    },
  }
}
