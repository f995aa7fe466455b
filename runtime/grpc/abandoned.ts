// Streams that were answered before their request ended. Many clients then send neither END_STREAM nor
// RST_STREAM, and Node resets nothing: each would hold one of the connection's streams for ever, until
// the connection dies of it.
import type { ServerHttp2Stream } from 'node:http2'
import { systemClock } from '../clock.ts'

/** milliseconds between two looks; the trailers are usually gone at the first */
const pause = 5

export interface Abandoned extends Disposable {
  add(stream: ServerHttp2Stream): void
}

/**
 * A reset overtakes trailers that still wait in the stream, so it follows once Node says that our side
 * is closed. Real time on purpose: this waits for the kernel, not for an instant of the caller's clock.
 */
export function createAbandoned(): Abandoned {
  const streams = new Set<ServerHttp2Stream>()
  const stopped = new AbortController()
  let sweeping = false

  function sweepOnce(): void {
    for (const stream of streams) {
      const answered = stream.destroyed || stream.state.localClose === 1
      if (!answered) continue
      streams.delete(stream)
      stream.pause()
      stream.destroy()
    }
  }

  async function sweep(): Promise<void> {
    sweeping = true
    while (streams.size > 0 && !stopped.signal.aborted) {
      await systemClock.sleep(pause, stopped).catch(() => {})
      sweepOnce()
    }
    sweeping = false
  }

  return {
    add(stream) {
      if (stream.destroyed) return
      // what still comes is thrown away, so that its window does not stall the connection
      stream.resume()
      streams.add(stream)
      if (!sweeping) void sweep()
    },
    [Symbol.dispose]() {
      stopped.abort()
    },
  }
}
