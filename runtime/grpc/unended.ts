// Streams that are answered before their request has ended. Many clients then send neither END_STREAM
// nor RST_STREAM, and Node resets nothing: the client counts the stream as closed, we as open, and
// once it fills the connection again HTTP/2 calls that a protocol error and the connection dies.
//
// The reset leaves a gap: a client that has read our END_STREAM may open its next stream before our reset
// is out, and one that is at its limit then is over ours. So what can wait is answered at the request's end.
import type { ServerHttp2Stream } from 'node:http2'
import { systemClock } from '../clock.ts'

/** turns of the event loop in which a socket that is not blocked has taken a header block */
const turns = 200
/** milliseconds between two looks at a blocked one */
const pause = 1

/** Whether the stream needs no more looks. A reset before our END_STREAM is out would drop it. */
function reset(stream: ServerHttp2Stream): boolean {
  if (stream.destroyed) return true
  if (stream.state.localClose !== 1) return false
  // Node puts off the reset of a stream that is being read, and then forgets it when it is destroyed
  stream.pause()
  stream.destroy()
  return true
}

/** Real time, whatever clock the server has: this waits for the kernel. */
async function resetOnceSent(stream: ServerHttp2Stream): Promise<void> {
  const closed = new AbortController()
  stream.once('close', () => closed.abort())
  while (!reset(stream)) {
    await systemClock.sleep(pause, { signal: closed.signal }).catch(() => {})
  }
}

function look(stream: ServerHttp2Stream, left: number): void {
  if (reset(stream)) return
  if (left === 0) void resetOnceSent(stream)
  else setImmediate(look, stream, left - 1)
}

/**
 * Resets a stream whose END_STREAM was submitted just now. Node has written it when immediates run, and
 * reads nothing before they have run: a client cannot open one stream more than we count in between.
 */
export function resetSoon(stream: ServerHttp2Stream): void {
  setImmediate(look, stream, turns)
}

/** milliseconds, real ones, that a refused request gets to end */
const patience = 1000

/**
 * Throws away what still comes of a request and calls back when it has ended, or when it has taken
 * `patience` or `most` bytes: whoever answers then has to reset the stream.
 */
export function atRequestEnd(
  stream: ServerHttp2Stream,
  most: number,
  answer: (ended: boolean) => void,
): void {
  let left = most
  const done = (ended: boolean) => {
    clearTimeout(timer)
    stream.off('data', count).off('end', end).off('close', close)
    if (!stream.destroyed && !stream.closed) answer(ended)
  }
  const count = (chunk: Uint8Array) => {
    left -= chunk.length
    if (left < 0) done(false)
  }
  const end = () => done(true)
  const close = () => done(false)
  const timer = setTimeout(done, patience, false)
  stream.on('data', count).on('end', end).on('close', close)
}
