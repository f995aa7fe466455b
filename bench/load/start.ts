// The process that makes traffic, started and asked.
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import type { Traffic, TrafficResult } from './traffic.ts'

export interface RunningTraffic extends AsyncDisposable {
  /** Ends it. */
  result(): Promise<TrafficResult>
}

function isResult(value: unknown): value is TrafficResult {
  return typeof value === 'object' && value !== null && 'requests' in value && 'failed' in value
}

export function startTraffic(traffic: Traffic): RunningTraffic {
  const child = fork(join(import.meta.dirname, 'traffic.ts'))
  const ended = once(child, 'exit')
  child.send(traffic)
  return {
    async result() {
      const answered = once(child, 'message')
      child.send('stop')
      const [message] = await answered
      await ended
      if (!isResult(message)) throw new TypeError('no result')
      return message
    },
    async [Symbol.asyncDispose]() {
      if (child.exitCode === null && child.signalCode === null) child.kill()
      await ended
    },
  }
}
