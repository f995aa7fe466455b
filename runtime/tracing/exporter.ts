// Spans on their way to a collector: in batches, beside the work, never more than a bounded number. A collector
// that is away or slow costs spans, and nothing else.
import { createBackoff } from '../backoff.ts'
import type { Clock } from '../clock.ts'
import { createLatest, run } from '../lifecycle.ts'
import type { Log } from '../log.ts'
import type { TraceCounts } from './span.ts'
import type { FinishedSpan } from './tracer.ts'

/** Resolves once the collector has them; rejects with why not. */
export type SendSpans = (spans: readonly FinishedSpan[], signal: AbortSignal) => Promise<void>

export interface ExporterOptions {
  readonly send: SendSpans
  /** whether what was sent may be sent again */
  readonly mayRetry: (error: unknown) => boolean
  readonly clock: Clock
  readonly log: Log
}

export interface Exporter extends AsyncDisposable {
  take(span: FinishedSpan): void
  counts(): TraceCounts
}

const largestBatch = 512
/** spans that wait; a second of an authority that issues as fast as it can is more */
const mostWaiting = 4096
/** milliseconds between two batches that are not full */
const pause = 1000
/** milliseconds for one request */
const patience = 10_000
/** milliseconds for what is left at the end */
const lastPatience = 2000

interface Queue {
  readonly waiting: FinishedSpan[]
  sent: number
  dropped: number
}

/** Takes the oldest, sends them, counts what became of them. Rejects when they are to be sent again. */
async function sendBatch(
  queue: Queue,
  { send, mayRetry }: ExporterOptions,
  signal: AbortSignal,
): Promise<void> {
  const batch = queue.waiting.slice(0, largestBatch)
  try {
    await send(batch, signal)
    queue.sent += batch.length
  } catch (error) {
    if (mayRetry(error)) throw error
    queue.dropped += batch.length
    queue.waiting.splice(0, batch.length)
    throw error
  }
  queue.waiting.splice(0, batch.length)
}

/** Says once that spans are lost, and once that they are not. */
function createTelling(log: Log) {
  let isTold = false
  return {
    failed(error: unknown) {
      if (!isTold) log.warn({ err: error }, 'spans do not get to the collector; tried again')
      isTold = true
    },
    went() {
      if (isTold) log.info('spans get to the collector again')
      isTold = false
    },
  }
}

export function createExporter(options: ExporterOptions): Exporter {
  const { clock, log } = options
  const queue: Queue = { waiting: [], sent: 0, dropped: 0 }
  const telling = createTelling(log)
  let wake = (): void => {}

  const loop = run(async (signal) => {
    using ready = createLatest<true>(signal)
    wake = () => ready.push(true)
    const backoff = createBackoff({ first: 1000, cap: 30_000 })
    for await (const _ of ready) {
      await clock.sleep(pause, { signal })
      while (queue.waiting.length > 0) {
        try {
          const either = AbortSignal.any([signal, AbortSignal.timeout(patience)])
          await sendBatch(queue, options, either)
          telling.went()
          backoff.reset()
        } catch (error) {
          if (signal.aborted) return
          telling.failed(error)
          await clock.sleep(backoff.next(), { signal })
        }
      }
    }
  })

  async function flush(): Promise<void> {
    const late = AbortSignal.timeout(lastPatience)
    try {
      while (queue.waiting.length > 0) await sendBatch(queue, options, late)
    } catch (error) {
      telling.failed(error)
    }
    queue.dropped += queue.waiting.length
    queue.waiting.length = 0
  }

  return {
    take(span) {
      if (queue.waiting.length >= mostWaiting) queue.dropped++
      else if (queue.waiting.push(span) === 1) wake()
    },
    counts: () => ({ sent: queue.sent, dropped: queue.dropped }),
    async [Symbol.asyncDispose]() {
      await loop[Symbol.asyncDispose]()
      await flush()
    },
  }
}
