// The body of a request, sent to one endpoint and, while little of it has come, to another one from its beginning.
import type { Readable, Writable } from 'node:stream'
import { isWhole } from './http2-cut.ts'

export interface Body {
  /** Whether it may be sent more than once. */
  readonly isKept: boolean
  /** Whether all that was taken from the source can be sent again. */
  readonly isRepeatable: boolean
  /** From its beginning; ends `sink` with it. */
  sendTo(sink: Writable): void
  /** What comes from now on waits for the next `sendTo`. */
  hold(): void
  /** It will not be sent again. */
  forget(): void
  /** Calls `ended` once it has come to its end, at once if it has. */
  onEnd(ended: () => void): void
}

/** Of a request without one: who sends it ends the request. */
export const noBody: Body = {
  isKept: false,
  isRepeatable: true,
  sendTo: (sink) => void sink.end(),
  hold() {},
  forget() {},
  onEnd: (ended) => ended(),
}

/** What is kept of a body, so that it can be sent again, at most. */
const most = 64 * 1024

/** Takes nothing from `source` before it is sent for the first time; `keeps` says whether it may be sent again. */
export function createBody(source: Readable, { keeps }: { readonly keeps: boolean }): Body {
  let sink: Writable | undefined
  let hasBegun = false
  let kept: Buffer[] = []
  let size = 0

  function keep(part: Buffer): void {
    size += part.length
    if (size <= most) kept.push(part)
    else forget()
  }

  function forget(): void {
    keeps = false
    kept = []
    source.off('data', keep)
  }

  return {
    get isKept() {
      return keeps
    },
    get isRepeatable() {
      return keeps || !hasBegun
    },
    sendTo(next) {
      sink = next
      if (!hasBegun && keeps) source.on('data', keep)
      for (const part of kept) next.write(part)
      hasBegun = true
      // what is cut short is ended by whoever sees it break
      const finish = () => {
        if (sink === next && isWhole(source)) next.end()
      }
      if (source.readableEnded) return finish()
      source.once('end', finish)
      source.pipe(next, { end: false })
    },
    hold() {
      if (sink !== undefined) source.unpipe(sink)
      sink = undefined
    },
    forget,
    onEnd(ended) {
      if (source.readableEnded) ended()
      else source.once('end', ended)
    },
  }
}
