// Requests that never stop while certificates rotate beneath them.
import { Agent, request } from 'node:http'
import type { Clock } from '../../runtime/clock.ts'
import { type Running, run } from '../../runtime/lifecycle.ts'

export interface Reply {
  readonly status: number
  /** the server's SPIFFE ID, as the caller's sidecar verified it */
  readonly peer: string | undefined
  readonly body: string
}

/** One request through a sidecar. Rejects when the connection fails. */
export function call(
  url: string,
  method: string,
  path: string,
  options: { agent?: Agent; signal?: AbortSignal } = {},
): Promise<Reply> {
  const { promise, resolve, reject } = Promise.withResolvers<Reply>()
  const outgoing = request(new URL(path, url), { method, ...options }, (response) => {
    const chunks: Buffer[] = []
    response.on('data', (chunk: Buffer) => chunks.push(chunk))
    response.on('error', reject)
    response.on('end', () => {
      const peer = response.headers['x-spiffe-peer-id']
      const body = Buffer.concat(chunks).toString('utf8')
      resolve({
        status: response.statusCode ?? 0,
        peer: Array.isArray(peer) ? peer[0] : peer,
        body,
      })
    })
  })
  outgoing.on('error', reject)
  outgoing.end()
  return promise
}

export interface Traffic extends AsyncDisposable {
  readonly sent: number
  /** answered 403 */
  readonly denied: number
  /** not answered, or with something else than 200 and 403 */
  readonly failed: number
  /** why requests failed, at most ten */
  readonly failures: readonly string[]
}

/** Sends GET `path` about every `pause` ms over `lanes` keep-alive connections. */
export function startTraffic(
  url: string,
  path: string,
  { clock, lanes, pause }: { clock: Clock; lanes: number; pause: number },
): Traffic {
  const agent = new Agent({ keepAlive: true, maxSockets: lanes })
  const failures: string[] = []
  let sent = 0
  let denied = 0
  let failed = 0

  async function once(): Promise<void> {
    sent++
    const reason = await call(url, 'GET', path, { agent }).then(
      ({ status }) => {
        if (status === 403) denied++
        return status === 200 || status === 403 ? undefined : `status ${status}`
      },
      (error: unknown) => String(error),
    )
    if (reason === undefined) return
    failed++
    if (failures.length < 10) failures.push(`${new Date(clock.now()).toISOString()} ${reason}`)
  }

  const running: Running[] = Array.from({ length: lanes }, () =>
    run(async (signal) => {
      while (!signal.aborted) {
        await once()
        await clock.sleep(pause, { signal })
      }
    }),
  )
  return {
    get sent() {
      return sent
    },
    get denied() {
      return denied
    },
    get failed() {
      return failed
    },
    failures,
    async [Symbol.asyncDispose]() {
      for (const lane of running) await lane[Symbol.asyncDispose]()
      agent.destroy()
    },
  }
}
