// HTTP/2 streams that end before their time: how to do it, and how to see it.
import type { Http2Stream } from 'node:http2'
import { addAbortSignal, type Readable } from 'node:stream'

/**
 * By RST_STREAM alone. `close()` of Node ends the writable side first, and with END_STREAM before it what was cut short
 * looks whole to the other side.
 */
export function cutStream(stream: Http2Stream, why: 'cancelled' | 'broken'): void {
  if (stream.destroyed) return
  // Node sends CANCEL for its own AbortError and INTERNAL_ERROR for all others
  if (why === 'cancelled') addAbortSignal(AbortSignal.abort(), stream)
  else stream.destroy(new Error('cut short'))
}

/** Of a source that says `end`: Node says so of a stream that was cancelled, too. */
export function isWhole(source: Readable): boolean {
  return !('rstCode' in source) || source.rstCode === 0
}
