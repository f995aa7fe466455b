// Who is told what this agent knows: streams, and the sockets that carry them. A rotation goes on once all of
// them have it (design.md §5); one that stands still holds it up for half a minute, and then no more.
import type { Clock } from '../runtime/clock.ts'
import type { ReadingOptions } from '../runtime/grpc/reading.ts'
import type { Latest } from '../runtime/lifecycle.ts'
import type { Log } from '../runtime/log.ts'
import type { Caller } from './attest/caller.ts'

type Mailbox = Pick<Latest<true>, 'caughtUp'>

export interface Audience {
  /** A stream that follows, by its mailbox. */
  follow(mailbox: Mailbox): Disposable
  /** A socket whose streams are to be read. */
  carry(server: { caughtUp(): Promise<void> }): Disposable
  /** Resolves once all that is known now was told to everybody, and read, but for those that are late. */
  caughtUp(signal: AbortSignal): Promise<void>
}

/** milliseconds that anybody is waited for */
const late = 30_000
/** milliseconds after which a stream that is not read is cut off; its client comes back when it can */
const dropped = 300_000
/** streams of xDS hear from another stream what their entries are */
const rounds = 2

const words = {
  late: 'a stream is not read: nobody waits for it any more',
  dropped: 'a stream that was not read is cut off',
} as const

/** How the sockets of an agent take streams that are not read; `describe` says whose they are. */
export function readingOf<P>(log: Log, describe: (peer: P) => object): ReadingOptions<P> {
  return {
    ...{ late, dropped },
    onUnread: ({ method, peer }, what) => log.warn({ method, ...describe(peer) }, words[what]),
  }
}

export const callerFields = ({ process: { pid, uid } }: Caller) => ({ pid, uid })

function listIn<T>(all: Set<T>, it: T): Disposable {
  all.add(it)
  return { [Symbol.dispose]: () => void all.delete(it) }
}

export function createAudience(clock: Clock): Audience {
  const mailboxes = new Set<Mailbox>()
  const servers = new Set<{ caughtUp(): Promise<void> }>()
  /** those that were late: they are waited for again once they have caught up */
  const stuck = new Set<Mailbox>()

  /** What is being told to streams now, of those that are not stuck. */
  function underWay(): ReadonlyMap<Mailbox, Promise<void>> {
    const busy = new Map<Mailbox, Promise<void>>()
    for (const mailbox of mailboxes) {
      const told = mailbox.caughtUp()
      if (told === undefined) stuck.delete(mailbox)
      else if (!stuck.has(mailbox)) busy.set(mailbox, told)
    }
    return busy
  }

  async function told(patience: Promise<'late'>): Promise<void> {
    const busy = underWay()
    const outcome = await Promise.race([Promise.all(busy.values()), patience])
    if (outcome !== 'late') return
    for (const mailbox of busy.keys())
      if (mailboxes.has(mailbox) && mailbox.caughtUp() !== undefined) stuck.add(mailbox)
  }

  return {
    follow(mailbox) {
      const listed = listIn(mailboxes, mailbox)
      return {
        [Symbol.dispose]() {
          listed[Symbol.dispose]()
          stuck.delete(mailbox)
        },
      }
    },
    carry: (server) => listIn(servers, server),
    async caughtUp(signal) {
      const over = new AbortController()
      const either = AbortSignal.any([signal, over.signal])
      const patience = clock.sleep(late, { signal: either }).then((): 'late' => 'late')
      patience.catch(() => {})
      try {
        for (let round = 0; round < rounds; round++) await told(patience)
        const read = [...servers].map((server) => server.caughtUp())
        await Promise.race([Promise.all(read), patience])
      } finally {
        over.abort()
      }
    },
  }
}
