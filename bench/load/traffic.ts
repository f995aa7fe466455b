// A steady stream of requests from a process of its own: so many a second, whatever becomes of them.
import { Agent, request } from 'node:http'
import { percentile } from '../measure.ts'

export interface Traffic {
  readonly port: number
  /** requests a second */
  readonly rate: number
}

export interface TrafficResult {
  readonly requests: number
  readonly failed: number
  /** the first of them */
  readonly failures: readonly string[]
  /** milliseconds */
  readonly p50: number
  readonly p99: number
}

const tick = 10
const mostInFlight = 1000
const mostKept = 200_000

function isTraffic(value: unknown): value is Traffic {
  return typeof value === 'object' && value !== null && 'port' in value && 'rate' in value
}

function start({ port, rate }: Traffic): () => TrafficResult {
  const agent = new Agent({ keepAlive: true, maxSockets: 32 })
  const times: number[] = []
  const failures: string[] = []
  let [inFlight, failed, requests, owed] = [0, 0, 0, 0]

  function ask(): void {
    const began = performance.now()
    inFlight++
    let isOver = false
    const end = (problem?: string) => {
      if (isOver) return
      isOver = true
      inFlight--
      requests++
      if (times.length < mostKept) times.push(performance.now() - began)
      if (problem === undefined) return
      failed++
      if (failures.length < 5) failures.push(problem)
    }
    request({ agent, host: '127.0.0.1', port, path: '/ok' }, (response) => {
      response.resume()
      response.on('end', () =>
        end(response.statusCode === 200 ? undefined : `${response.statusCode}`),
      )
      response.on('error', (error) => end(error.message))
    })
      .on('error', (error) => end(error.message))
      .end()
  }

  let last = performance.now()
  const timer = setInterval(() => {
    const now = performance.now()
    // what a machine that stood still has missed is not made up for
    owed = Math.min(owed + ((now - last) * rate) / 1000, (rate * tick * 5) / 1000)
    last = now
    for (; owed >= 1; owed--) if (inFlight < mostInFlight) ask()
  }, tick)
  return () => {
    clearInterval(timer)
    agent.destroy()
    const [p50, p99] = [percentile(times, 0.5), percentile(times, 0.99)]
    return { requests, failed, failures, p50, p99 }
  }
}

let stop: (() => TrafficResult) | undefined
process.on('message', (message) => {
  if (isTraffic(message)) {
    stop = start(message)
    return
  }
  const result = stop?.()
  process.send?.(result, () => process.exit(0))
})
