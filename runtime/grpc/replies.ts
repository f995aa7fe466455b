// The messages of one streamed answer on their way out: coalesced, and held back by a slow reader.
import type { ServerHttp2Stream } from 'node:http2'
import { nextTick } from 'node:process'
import { framedSize, putFrame } from './frame.ts'

export interface Replies {
  /** Takes one encoded message; false asks the writer to wait for `drained`. */
  write(message: Uint8Array): boolean
  drained(): Promise<void>
  /** Writes what still waits. */
  flush(): void
  /** Lets a writer that waits go on, for a call that is over. */
  release(): void
}

const batchBytes = 16 * 1024

/**
 * What a handler yields without waiting goes out as one write: the flush runs once the promises that
 * are ready have all run, so nothing is held back while the handler sleeps.
 */
export function createReplies(stream: ServerHttp2Stream): Replies {
  let batch: Uint8Array[] = []
  let size = 0
  let wake: (() => void) | undefined

  function flush(): void {
    if (size === 0) return
    const data = Buffer.allocUnsafe(size)
    let at = 0
    for (const message of batch) at = putFrame(data, at, message)
    batch = []
    size = 0
    if (stream.writable) stream.write(data)
  }

  function release(): void {
    wake?.()
    wake = undefined
  }

  stream.on('drain', release)
  return {
    write(message) {
      if (size === 0) nextTick(flush)
      batch.push(message)
      size += framedSize(message)
      if (size >= batchBytes) flush()
      return !stream.writableNeedDrain
    },
    drained: () => new Promise<void>((resolve) => (wake = resolve)),
    flush,
    release,
  }
}
