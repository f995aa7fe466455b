// Who reads what it is sent. A client that has stopped holds up nobody: of its stream one message waits, it is
// told of when it is late, and cut off in the end. A PING tells what was read: who answers it has taken
// everything before it from the socket (RFC 9113 §6.7), whatever library it uses.
import { constants } from 'node:http2'
import { IdentityError } from '../../spiffe/errors.ts'
import type { Clock } from '../clock.ts'
import { createTopic, every, type Topic } from '../lifecycle.ts'
import { abort, type Call, type Caller } from './answer.ts'
import { methodName } from './service.ts'

export interface ReadingOptions<P> {
  /** milliseconds after which a stream that has not read is late: nobody waits for it any more */
  readonly late: number
  /** milliseconds after which it is reset; its connection is closed when that is not read at all */
  readonly dropped: number
  /** Called once when it is late, and once when it is dropped. */
  readonly onUnread?: (stream: UnreadStream<P>, what: 'late' | 'dropped') => void
}

export interface UnreadStream<P> {
  /** `package.Service/Method` */
  readonly method: string
  readonly peer: P
  /** milliseconds */
  readonly unreadFor: number
}

/** What becomes of the messages of one stream; disposed when that is answered. */
export interface Reader extends Disposable {
  wrote(): void
  /** For a write that holds all messages so far; what it returns is called when the kernel has them. */
  handed(): () => void
}

export interface Reading<P> extends AsyncDisposable {
  follow(call: Call<P>): Reader
  /** the streams that are late */
  unread(): readonly UnreadStream<P>[]
  /** Resolves once everything that was written is read, but for streams that are late by then. */
  caughtUp(): Promise<void>
}

/** One stream; its messages are counted. */
interface Track<P> {
  readonly call: Call<P>
  written: number
  /** those that the kernel has */
  sent: number
  read: number
  /** when the oldest unread one was written, or any was read; by the monotonic clock */
  since: number
  isLate: boolean
  isOver: boolean
}

interface Connection<P> {
  readonly caller: Caller<P>
  readonly tracks: Set<Track<P>>
  /** when the PING was sent that is not answered yet */
  askedAt: number | undefined
}

/** milliseconds between two looks at all streams */
const lookEvery = 5000

const isUnread = <P>({ read, written }: Track<P>) => read < written

/** PINGs to connections, and what their answers say of streams. */
function createAsking<P>(clock: Clock, progress: Topic<Track<P>>) {
  /** how many wait for answers: meanwhile each message is asked after as soon as it is out */
  let waiting = 0

  function heard(track: Track<P>, upTo: number): void {
    if (upTo <= track.read) return
    track.read = upTo
    track.since = clock.monotonic()
    track.isLate = false
    progress.publish(track)
  }

  function ask(connection: Connection<P>, tracks: readonly Track<P>[]): void {
    const { http2 } = connection.caller
    if (tracks.length === 0 || connection.askedAt !== undefined || http2.destroyed) return
    const asked = tracks.map((track) => [track, track.sent] as const)
    connection.askedAt = clock.monotonic()
    http2.ping((error) => {
      connection.askedAt = undefined
      if (error !== null) return
      for (const [track, upTo] of asked) heard(track, upTo)
      if (waiting > 0) askSent(connection)
    })
  }

  /** What waits for its client's window is not answered for, however often one asks. */
  function askSent(connection: Connection<P>): void {
    const sent = [...connection.tracks].filter(({ read, sent }) => read < sent)
    ask(connection, sent)
  }

  return {
    ask,
    sent(connection: Connection<P>): void {
      if (waiting > 0) askSent(connection)
    },
    /** Asks all of them, and after what they are sent until `done`. */
    async until(done: Promise<void>, connections: Iterable<Connection<P>>): Promise<void> {
      waiting++
      for (const connection of connections) askSent(connection)
      await done
      waiting--
    },
  }
}

/** The streams by their connections. */
function createTracks<P>(clock: Clock) {
  const connections = new Map<Caller<P>, Connection<P>>()
  const progress = createTopic<Track<P>>()
  const asking = createAsking(clock, progress)

  function connectionOf(caller: Caller<P>): Connection<P> {
    const known = connections.get(caller)
    if (known !== undefined) return known
    const made = { caller, tracks: new Set<Track<P>>(), askedAt: undefined }
    connections.set(caller, made)
    return made
  }

  function leave(track: Track<P>, connection: Connection<P>): void {
    track.isOver = true
    connection.tracks.delete(track)
    if (connection.tracks.size === 0) connections.delete(connection.caller)
    progress.publish(track)
  }

  function follow(call: Call<P>): Reader {
    const counts = { written: 0, sent: 0, read: 0, since: 0 }
    const track: Track<P> = { call, ...counts, isLate: false, isOver: false }
    const connection = connectionOf(call.caller)
    connection.tracks.add(track)
    return {
      wrote() {
        if (!isUnread(track)) track.since = clock.monotonic()
        track.written++
      },
      handed() {
        const upTo = track.written
        return () => {
          track.sent = upTo
          asking.sent(connection)
        }
      },
      [Symbol.dispose]: () => leave(track, connection),
    }
  }

  async function caughtUp(): Promise<void> {
    const left = new Map<Track<P>, number>()
    for (const { tracks } of connections.values())
      for (const it of tracks) if (isUnread(it) && !it.isLate) left.set(it, it.written)
    if (left.size === 0) return
    const { promise, resolve } = Promise.withResolvers<void>()
    using _ = progress.subscribe((track) => {
      const { isLate, isOver, read } = track
      if (isLate || isOver || read >= (left.get(track) ?? 0)) left.delete(track)
      if (left.size === 0) resolve()
    })
    await asking.until(promise, connections.values())
  }

  return { connections, progress, follow, caughtUp, ask: asking.ask }
}

export function createReading<P>(
  { late, dropped, onUnread }: ReadingOptions<P>,
  clock: Clock,
): Reading<P> {
  const { connections, progress, follow, caughtUp, ask } = createTracks<P>(clock)

  const told = ({ call, since }: Track<P>): UnreadStream<P> => ({
    method: methodName(call.route.method),
    peer: call.caller.peer,
    unreadFor: clock.monotonic() - since,
  })

  function drop(track: Track<P>, { askedAt, caller }: Connection<P>): void {
    onUnread?.(told(track), 'dropped')
    const isDeaf = askedAt !== undefined && clock.monotonic() - askedAt >= late
    abort(track.call, new IdentityError('ERR_EXHAUSTED', 'the stream was not read'))
    // what waits would be in the way of a status; gRPC reads this code as RESOURCE_EXHAUSTED
    track.call.stream.close(constants.NGHTTP2_ENHANCE_YOUR_CALM)
    if (isDeaf) caller.socket.destroy()
  }

  function judge(track: Track<P>, connection: Connection<P>): void {
    const unreadFor = clock.monotonic() - track.since
    if (unreadFor >= dropped) drop(track, connection)
    else if (unreadFor >= late && !track.isLate) {
      track.isLate = true
      onUnread?.(told(track), 'late')
      progress.publish(track)
    }
  }

  const looking = every(clock, lookEvery, () => {
    for (const connection of connections.values()) {
      const unread = [...connection.tracks].filter(isUnread)
      for (const track of unread) judge(track, connection)
      ask(connection, unread)
    }
  })

  return {
    follow,
    caughtUp,
    unread: () =>
      [...connections.values()].flatMap(({ tracks }) =>
        [...tracks].filter(({ isLate }) => isLate).map(told),
      ),
    [Symbol.asyncDispose]: () => looking[Symbol.asyncDispose](),
  }
}
