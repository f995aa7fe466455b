// PostgreSQL's LISTEN: a hint that somebody has written, on a connection of its own that is replaced when it
// breaks.
import pg from 'pg'
import type { Clock } from '../clock.ts'
import { type Running, run } from '../lifecycle.ts'

export const channel = 'castellan'
/** milliseconds before the listening connection is tried again */
const pause = 500
/** and until a frozen server is left without its goodbye */
const goodbye = 5000
const forever = { signal: new AbortController().signal }

/** Calls `wake` on each notification, and after each time when one may have been lost. */
export function listen(config: pg.ClientConfig, clock: Clock, wake: () => void): Running {
  return run(async (signal) => {
    while (!signal.aborted) {
      const client = new pg.Client(config)
      const ended = Promise.withResolvers<void>()
      client.on('error', () => ended.resolve())
      client.on('end', () => ended.resolve())
      client.on('notification', wake)
      signal.addEventListener('abort', () => ended.resolve(), { once: true })
      try {
        await client.connect()
        await client.query(`LISTEN ${channel}`)
        wake()
        await ended.promise
      } catch {
        // the next look finds what is missed until it is back
      }
      await Promise.race([client.end().catch(() => {}), clock.sleep(goodbye, forever)])
      await clock.sleep(pause, { signal })
    }
  })
}
