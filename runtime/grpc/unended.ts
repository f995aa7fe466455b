// Streams that are answered before their request has ended. Many clients then send neither END_STREAM
// nor RST_STREAM, and Node resets nothing: the client counts the stream as closed, we as open, and
// once it fills the connection again HTTP/2 calls that a protocol error and the connection dies.
//
// A reset after our END_STREAM leaves a gap: a client at its limit may open its next stream before the
// reset is out, and is over ours then. So a request that has an end is answered there, or only reset.
import { constants, type ServerHttp2Stream } from 'node:http2'

/** Whether the stream needs no more looks. A reset before our END_STREAM is out would drop it. */
function reset(stream: ServerHttp2Stream): boolean {
  if (stream.destroyed) return true
  if (stream.state.localClose !== 1) return false
  // Node puts off the reset of a stream that is being read, and then forgets it when it is destroyed
  stream.pause()
  stream.destroy()
  return true
}

/** One look per turn of the event loop, right after the turn's writes; it keeps no loop from resting. */
function look(stream: ServerHttp2Stream): void {
  if (!reset(stream)) setImmediate(look, stream).unref()
}

/** Resets a stream whose END_STREAM was submitted just now, once it is out. */
export function resetSoon(stream: ServerHttp2Stream): void {
  setImmediate(look, stream)
}

/** milliseconds, real ones, that a refused request gets to end */
const patience = 5000

/**
 * Throws away what still comes of a request and answers when it has ended. One that takes longer than
 * `patience` or sends over `most` bytes is reset with a code that clients read as RESOURCE_EXHAUSTED.
 */
export function atRequestEnd(stream: ServerHttp2Stream, most: number, answer: () => void): void {
  let left = most
  const done = (then: () => void) => {
    clearTimeout(timer)
    stream.off('data', count).off('end', end).off('close', close)
    if (!stream.destroyed && !stream.closed) then()
  }
  const giveUp = () => stream.close(constants.NGHTTP2_ENHANCE_YOUR_CALM)
  const count = (chunk: Uint8Array) => {
    left -= chunk.length
    if (left < 0) done(giveUp)
  }
  const end = () => done(answer)
  const close = () => done(() => {})
  const timer = setTimeout(done, patience, giveUp)
  stream.on('data', count).on('end', end).on('close', close)
}
