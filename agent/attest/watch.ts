// One loop over all processes that somebody follows: who has ended is found by one system call each second,
// who has become something else by a look at each, spread over three.
import type { Clock } from '../../runtime/clock.ts'
import { every, type Running } from '../../runtime/lifecycle.ts'
import type { PeerProcess, Processes } from './peer-credentials.ts'

export interface Watched {
  readonly process: PeerProcess
  /** Looks whether the process is what it was; called while it is watched. */
  look(): void
  /** Called once: it has ended. */
  ended(): void
}

export interface Watch {
  /** Follows a process until that is disposed; the loop runs while there is one to follow. */
  add(watched: Watched): Disposable
}

export interface WatchOptions {
  readonly processes: Pick<Processes, 'ended'>
  readonly clock: Clock
}

const tick = 100
const ticksPerPoll = 10
/** each process is looked at once in so many ticks */
const slots = 30

export function createWatch({ processes, clock }: WatchOptions): Watch {
  const alive = new Map<PeerProcess, Watched>()
  const bySlot: readonly Set<Watched>[] = Array.from({ length: slots }, () => new Set<Watched>())
  let running: Running | undefined

  function poll(): void {
    for (const process of processes.ended(alive.keys())) {
      const watched = alive.get(process)
      if (watched !== undefined) {
        forget(watched)
        watched.ended()
      }
    }
  }

  function forget(watched: Watched): void {
    alive.delete(watched.process)
    for (const slot of bySlot) slot.delete(watched)
    if (alive.size > 0) return
    // the loop has nothing to finish: nobody waits for it
    running?.[Symbol.asyncDispose]()
    running = undefined
  }

  /** A loop that was held up makes good for it, by one round at most. */
  function start(): Running {
    const started = clock.monotonic()
    let done = 0
    return every(clock, tick, () => {
      const due = Math.floor((clock.monotonic() - started) / tick)
      const from = Math.max(done, due - slots)
      const isPollDue = Math.floor(due / ticksPerPoll) > Math.floor(done / ticksPerPoll)
      for (let slot = from + 1; slot <= due; slot++) {
        for (const watched of bySlot[slot % slots] ?? []) watched.look()
      }
      done = due
      if (isPollDue) poll()
    })
  }

  return {
    add(watched) {
      const emptiest = bySlot.reduce((a, b) => (b.size < a.size ? b : a))
      alive.set(watched.process, watched)
      emptiest.add(watched)
      running ??= start()
      return { [Symbol.dispose]: () => forget(watched) }
    },
  }
}
