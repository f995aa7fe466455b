// When the machine stood still: a virtual machine that is taken off its processors for half a second spoils
// whatever was measured then, and its own accounts do not say so. A thread that does nothing but sleep notices.
import { isMainThread, Worker, workerData } from 'node:worker_threads'

export interface Pauses extends AsyncDisposable {
  /** Milliseconds of it between two instants of `performance.now()`; asked some time after them. */
  during(from: number, to: number): number
}

/** milliseconds: a thread that may run wakes much sooner */
const shortest = 60
const sleep = 5
const most = 100_000

/** one clock for all threads */
const now = () => Number(process.hrtime.bigint()) / 1e6

interface Shared {
  readonly count: Int32Array
  /** of each pause its begin and end */
  readonly times: Float64Array
}

function watch({ count, times }: Shared): void {
  const never = new Int32Array(new SharedArrayBuffer(4))
  for (let last = now(); ; ) {
    Atomics.wait(never, 0, 0, sleep)
    const woken = now()
    const known = Atomics.load(count, 0)
    if (woken - last > shortest && known < most) {
      times[known * 2] = last
      times[known * 2 + 1] = woken
      Atomics.store(count, 0, known + 1)
    }
    last = woken
  }
}

export function watchPauses(): Pauses {
  const count = new Int32Array(new SharedArrayBuffer(4))
  const times = new Float64Array(new SharedArrayBuffer(most * 16))
  const worker = new Worker(new URL(import.meta.url), { workerData: { count, times } })
  const ahead = now() - performance.now()
  return {
    during(from, to) {
      let sum = 0
      for (let i = 0; i < Atomics.load(count, 0); i++) {
        const [begin = 0, end = 0] = times.subarray(i * 2, i * 2 + 2)
        sum += Math.max(0, Math.min(end - ahead, to) - Math.max(begin - ahead, from))
      }
      return sum
    },
    async [Symbol.asyncDispose]() {
      await worker.terminate()
    },
  }
}

function isShared(value: unknown): value is Shared {
  return typeof value === 'object' && value !== null && 'count' in value && 'times' in value
}

if (!isMainThread && isShared(workerData)) watch(workerData)
