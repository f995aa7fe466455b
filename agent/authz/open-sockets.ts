// Sockets that are open, with what is kept for each, and the wait for their end.
import type { Socket } from 'node:net'
import type { Clock } from '../../runtime/clock.ts'

export interface OpenSockets<T> {
  readonly all: ReadonlyMap<Socket, T>
  add(socket: Socket, its: T): void
  /** Resolves once all have ended; those that are late are destroyed. */
  empty(): Promise<void>
}

/** milliseconds for what is under way when the agent ends */
const patience = 5000

export function createOpenSockets<T>(clock: Clock): OpenSockets<T> {
  const all = new Map<Socket, T>()
  let emptied = () => {}
  return {
    all,
    add(socket, its) {
      all.set(socket, its)
      socket.once('close', () => {
        all.delete(socket)
        if (all.size === 0) emptied()
      })
    },
    async empty() {
      if (all.size === 0) return
      const { promise, resolve } = Promise.withResolvers<void>()
      emptied = resolve
      const done = new AbortController()
      const late = clock.sleep(patience, { signal: done.signal }).catch(() => {})
      await Promise.race([promise, late])
      done.abort()
      for (const socket of all.keys()) socket.destroy()
    },
  }
}
