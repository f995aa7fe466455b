// The event table as everybody in this program follows it: in the order of the cursors, whoever wrote.
import type { Clock } from '../../../runtime/clock.ts'
import type { Database } from '../../../runtime/db/database.ts'
import { createLatest, run } from '../../../runtime/lifecycle.ts'
import { explain } from '../../../spiffe/errors.ts'
import type { Event } from '../model.ts'
import { eventRow } from '../rows.ts'
import type { EventListener, EventTable } from '../store.ts'

export interface EventLog extends AsyncDisposable {
  readonly table: EventTable
  /** Resolves once the listeners have taken in everything up to `cursor`. */
  reached(cursor: number): Promise<void>
  /** Why what is committed is not taken in; undefined when it is. */
  trouble(): string | undefined
}

const mostAtOnce = 1000
/** milliseconds after a read, or a listener, that failed */
const pause = 250

export interface EventLogOptions {
  readonly clock: Clock
  /** told why events are not taken in yet, once for each reason */
  readonly onTrouble?: ((error: unknown) => void) | undefined
}

/** Starts behind the last event that is there. */
export async function openEventLog(
  db: Database,
  { clock, onTrouble = () => {} }: EventLogOptions,
): Promise<EventLog> {
  const listeners = new Set<EventListener>()
  const newest = await db.read.get('SELECT max(cursor) AS last FROM events')
  let trouble: string | undefined
  let told = Number(newest?.last ?? 0)
  let waiting: { readonly cursor: number; readonly settle: () => void }[] = []

  async function after(cursor: number, limit: number): Promise<Event[]> {
    const sql = 'SELECT * FROM events WHERE cursor > ? ORDER BY cursor LIMIT ?'
    return (await db.read.all(sql, cursor, limit)).map((row) => eventRow.parse(row))
  }

  async function tell(): Promise<void> {
    for (;;) {
      const events = await after(told, mostAtOnce)
      const last = events.at(-1)
      if (last === undefined) return
      for (const listener of listeners) await listener(events)
      told = last.cursor
      const reached = waiting.filter(({ cursor }) => cursor <= told)
      waiting = waiting.filter(({ cursor }) => cursor > told)
      for (const { settle } of reached) settle()
    }
  }

  const stop = new AbortController()
  const wake = createLatest<true>(stop.signal)
  const foreign = db.onForeignWrite(() => wake.push(true))
  const telling = run(async (signal) => {
    signal.addEventListener('abort', () => stop.abort(), { once: true })
    for await (const _ of wake) {
      try {
        await tell()
        trouble = undefined
      } catch (error) {
        // what is committed is told in the end: the database comes back, or this program stops
        if (signal.aborted) throw error
        const reason = explain(error)
        if (reason !== trouble) onTrouble(error)
        trouble = reason
        await clock.sleep(pause, { signal })
        wake.push(true)
      }
    }
  })

  return {
    table: {
      after,
      last: () => told,
      subscribe(listener) {
        listeners.add(listener)
        return { [Symbol.dispose]: () => void listeners.delete(listener) }
      },
    },
    trouble: () => trouble,
    reached(cursor) {
      if (cursor <= told) return Promise.resolve()
      const { promise, resolve } = Promise.withResolvers<void>()
      waiting.push({ cursor, settle: resolve })
      wake.push(true)
      return promise
    },
    async [Symbol.asyncDispose]() {
      foreign[Symbol.dispose]()
      await telling[Symbol.asyncDispose]()
      for (const { settle } of waiting) settle()
    },
  }
}
