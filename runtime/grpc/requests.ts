// The messages of one caller's stream as an async iterable that holds the sender back.
import type { Message } from '@bufbuild/protobuf'

/** What a call needs of its HTTP/2 stream to hold the sender back. */
export interface Tap {
  pause(): unknown
  resume(): unknown
}

export interface Requests extends AsyncIterable<Message> {
  push(bytes: Uint8Array): void
  end(): void
  fail(error: Error): void
}

// Enough to keep a decoder busy between two reads, and what a caller can make us hold unread.
const mostWaiting = 64 * 1024
// an empty message costs memory too
const overhead = 64

/** The iterable can be walked once. Messages are decoded when they are asked for. */
export function createRequests(tap: Tap, decode: (bytes: Uint8Array) => Message): Requests {
  const waiting: Uint8Array[] = []
  let size = 0
  let paused = false
  let ended = false
  let failure: Error | undefined
  let wake: (() => void) | undefined

  function take(): Uint8Array | undefined {
    const bytes = waiting.shift()
    if (bytes === undefined) return undefined
    size -= bytes.length + overhead
    if (paused && size < mostWaiting / 2) {
      paused = false
      tap.resume()
    }
    return bytes
  }

  async function* walk(): AsyncGenerator<Message, void, void> {
    for (;;) {
      if (failure !== undefined) throw failure
      const bytes = take()
      if (bytes !== undefined) yield decode(bytes)
      else if (ended) return
      else await new Promise<void>((resolve) => (wake = resolve))
    }
  }

  const messages = walk()
  return {
    push(bytes) {
      waiting.push(bytes)
      size += bytes.length + overhead
      if (!paused && size >= mostWaiting) {
        paused = true
        tap.pause()
      }
      wake?.()
    },
    end() {
      ended = true
      wake?.()
    },
    fail(error) {
      failure ??= error
      wake?.()
    },
    [Symbol.asyncIterator]: () => messages,
  }
}
