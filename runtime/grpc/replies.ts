// The messages of one streamed answer on their way out: coalesced, and held back by a slow reader.
import type { ServerHttp2Stream } from 'node:http2'
import { nextTick } from 'node:process'
import { framedSize, putFrame } from './frame.ts'
import type { Reader } from './reading.ts'
import type { Encoded } from './service.ts'

export interface Replies {
  /** Takes one encoded message; false asks the writer to wait for `drained`. */
  write(message: Encoded): boolean
  drained(): Promise<void>
  /** Writes what still waits. */
  flush(): void
  /** Lets a writer that waits go on, for a call that is over. */
  release(): void
}

const batchBytes = 16 * 1024

/** A message alone that was framed before is sent as it is: streams that are told the same share it. */
function joined(batch: readonly Encoded[], size: number): Uint8Array {
  const [first] = batch
  if (batch.length === 1 && first?.frame !== undefined) return first.frame
  const data = Buffer.allocUnsafe(size)
  let at = 0
  for (const { message } of batch) at = putFrame(data, at, message)
  return data
}

/**
 * What a handler yields without waiting goes out as one write: the flush runs once the promises that
 * are ready have all run, so nothing is held back while the handler sleeps. Streams that have a `reader`
 * tell what is so now: their handler is asked for the next message when the one before is out.
 */
export function createReplies(stream: ServerHttp2Stream, reader?: Reader): Replies {
  let batch: Encoded[] = []
  let size = 0
  let wake: (() => void) | undefined

  function flush(): void {
    if (size === 0) return
    const data = joined(batch, size)
    batch = []
    size = 0
    if (!stream.writable) return
    if (reader === undefined) stream.write(data)
    else stream.write(data, handedOver(reader.handed()))
  }

  const handedOver = (tell: () => void) => () => {
    tell()
    goOn()
  }

  function goOn(): void {
    wake?.()
    wake = undefined
  }

  if (reader === undefined) stream.on('drain', goOn)
  return {
    write(message) {
      if (size === 0) nextTick(flush)
      batch.push(message)
      size += framedSize(message.message)
      reader?.wrote()
      if (size >= batchBytes) flush()
      return reader === undefined && !stream.writableNeedDrain
    },
    drained: () => new Promise<void>((resolve) => (wake = resolve)),
    flush,
    release() {
      reader?.[Symbol.dispose]()
      goOn()
    },
  }
}
