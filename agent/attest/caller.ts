// A connection to the public socket and the process behind it: attested when it asks for something, followed
// while somebody wants to hear what becomes of it.
import type { Socket } from 'node:net'
import type { Clock } from '../../runtime/clock.ts'
import { createTopic } from '../../runtime/lifecycle.ts'
import type { Log } from '../../runtime/log.ts'
import type { WorkloadAttestation } from './attestor.ts'
import { createDemand, type Demand, type Entries } from './demand.ts'
import type { PeerProcess } from './peer-credentials.ts'
import { createWatch, type Watch } from './watch.ts'
import type { NodeAttestation } from './workload-attestor.ts'

export interface Caller extends Disposable {
  readonly process: PeerProcess
  /** Selectors as they are now. Throws ERR_DENIED once the process has ended. */
  attest(): Promise<WorkloadAttestation>
  /** Called when its process has ended, or is not what it was when it was attested. */
  onChange(listener: () => void): Disposable
}

export interface CallersOptions extends NodeAttestation {
  readonly knowledge: Entries
  readonly clock: Clock
  readonly log: Log
}

/** What all callers have in common. */
interface Shared extends CallersOptions {
  readonly watch: Watch
  readonly demand: () => Demand
}

/** What becomes of a process, for those who listen. */
function createFollowed(process: PeerProcess, { proc, watch }: Pick<Shared, 'proc' | 'watch'>) {
  const topic = createTopic<void>()
  let seen: string | undefined
  let watching: Disposable | undefined

  /** Whoever notices first tells everybody: streams share a connection, and were attested at other times. */
  function look(): void {
    const now = proc.look(process.pid)
    const isNews = seen !== undefined && seen !== now
    seen = now
    if (isNews) topic.publish()
  }

  function rest(): void {
    watching?.[Symbol.dispose]()
    watching = undefined
  }

  return {
    look,
    onChange(listener: () => void): Disposable {
      if (seen === undefined) look()
      const subscription = topic.subscribe(listener)
      watching ??= watch.add({ process, look, ended: topic.publish })
      return {
        [Symbol.dispose]() {
          subscription[Symbol.dispose]()
          if (topic.size === 0) rest()
        },
      }
    },
    [Symbol.dispose]: rest,
  }
}

function createCaller(process: PeerProcess, shared: Shared): Caller {
  const { attestor, demand, log } = shared
  const stop = new AbortController()
  const followed = createFollowed(process, shared)
  let isTold = false

  function tell({ missing }: WorkloadAttestation): void {
    if (missing.length === 0 || isTold) return
    isTold = true
    log.warn({ pid: process.pid, uid: process.uid, missing }, 'selectors are absent')
  }

  return {
    process,
    async attest() {
      // before it is attested: what it becomes meanwhile is noticed later
      followed.look()
      const result = await attestor.attest(process, demand(), { signal: stop.signal })
      tell(result)
      return result
    },
    onChange: followed.onChange,
    [Symbol.dispose]() {
      stop.abort(new Error('the caller has gone'))
      followed[Symbol.dispose]()
      process[Symbol.dispose]()
    },
  }
}

/** Makes callers of connections; throws ERR_DENIED for those that nobody can be seen behind. */
export function createCallers(options: CallersOptions): (socket: Socket) => Caller {
  const shared = {
    ...options,
    watch: createWatch(options),
    demand: createDemand(options.knowledge),
  }
  return (socket) => createCaller(options.processes.identify(socket), shared)
}
