// Requests at a steady rate, whatever becomes of those before them: what each was answered, and when.
import { systemClock } from '../../runtime/clock.ts'
import { run } from '../../runtime/lifecycle.ts'
import { connectRaw, type RawConnection, type RawOptions } from '../support/raw-http1.ts'

export interface Lane {
  readonly door: RawOptions
  readonly path: string
  /** requests a second */
  readonly rate: number
}

export interface Answer {
  readonly path: string
  /** 0: the connection ended, or nothing came */
  readonly status: number
  readonly body: string
  /** milliseconds, of the monotonic clock */
  readonly began: number
  readonly ended: number
}

export interface SteadyTraffic extends AsyncDisposable {
  /** in the order in which they came */
  readonly answers: readonly Answer[]
}

/** milliseconds */
const tick = 10
/** every so many requests the connection is left, and another one made */
const requestsEach = 20

/** Connections that stay open, as many as there are requests under way. */
function createPool(door: RawOptions) {
  const all = new Set<RawConnection>()
  const idle = new Set<RawConnection>()
  function forget(connection: RawConnection): void {
    connection[Symbol.dispose]()
    all.delete(connection)
    idle.delete(connection)
  }
  function open(): RawConnection {
    const connection = connectRaw(door)
    all.add(connection)
    void connection.closed.then(() => forget(connection))
    return connection
  }
  let count = 0
  return {
    async get(path: string) {
      const [connection = open()] = idle
      idle.delete(connection)
      const silent = (error: unknown) => ({ status: 0, body: String(error) })
      const answer = await connection.get(path).catch(silent)
      count++
      if (count % requestsEach === 0) forget(connection)
      else if (all.has(connection)) idle.add(connection)
      return answer
    },
    close() {
      for (const connection of all) forget(connection)
    },
  }
}

/** One lane, until `signal` is aborted; what is under way then is heard. */
async function drive({ door, path, rate }: Lane, answers: Answer[], signal: AbortSignal) {
  const pool = createPool(door)
  const underWay = new Set<Promise<void>>()
  const ask = async () => {
    const began = systemClock.monotonic()
    const { status, body } = await pool.get(path)
    answers.push({ path, status, body, began, ended: systemClock.monotonic() })
  }
  let last = systemClock.monotonic()
  let owed = 0
  while (!signal.aborted) {
    const now = systemClock.monotonic()
    // what a machine that stood still has missed is not made up for
    owed = Math.min(owed + ((now - last) * rate) / 1000, 1 + (rate * tick * 5) / 1000)
    last = now
    for (; owed >= 1; owed--) {
      const asking = ask()
      underWay.add(asking)
      void asking.then(() => underWay.delete(asking))
    }
    await systemClock.sleep(tick, { signal }).catch(() => {})
  }
  await Promise.all(underWay)
  pool.close()
}

export function startSteadyTraffic(lanes: readonly Lane[]): SteadyTraffic {
  const answers: Answer[] = []
  const running = run(async (signal) => {
    await Promise.all(lanes.map((lane) => drive(lane, answers, signal)))
  })
  return { answers, [Symbol.asyncDispose]: () => running[Symbol.asyncDispose]() }
}
