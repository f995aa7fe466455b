// What the agent's admin socket says, followed: the demonstration's view and its check both read it.
import { createClient } from '@connectrpc/connect'
import { openTransport } from '../../client/transport.ts'
import { AgentAdmin, type AgentStatus } from '../../proto/gen/castellan/workload/v1/admin_pb.js'
import type { Denial, Flow } from '../../proto/gen/castellan/workload/v1/sidecar_pb.js'
import { systemClock } from '../../runtime/clock.ts'
import { createTopic, run } from '../../runtime/lifecycle.ts'

export interface StatusFeed extends AsyncDisposable {
  /** undefined before the first, and while the agent is away */
  current(): AgentStatus | undefined
  /** Resolves with the first status for which `holds` is true. Rejects when the signal is aborted first. */
  until(holds: (status: AgentStatus) => boolean, signal: AbortSignal): Promise<AgentStatus>
  onChange(listener: (status: AgentStatus) => void): Disposable
  denials(limit: number): Promise<readonly Denial[]>
  flows(): Promise<readonly Flow[]>
}

export function followStatus(adminSocket: string): StatusFeed {
  const local = openTransport({ kind: 'unix', path: adminSocket })
  const client = createClient(AgentAdmin, local.transport)
  const topic = createTopic<AgentStatus>()
  let current: AgentStatus | undefined
  const loop = run(async (signal) => {
    while (!signal.aborted) {
      try {
        for await (const status of client.watchStatus({}, { signal })) {
          current = status
          topic.publish(status)
        }
      } catch {
        // an agent that is away may come back
      }
      current = undefined
      await systemClock.sleep(500, { signal })
    }
  })
  return {
    current: () => current,
    async until(holds, signal) {
      if (current !== undefined && holds(current)) return current
      signal.throwIfAborted()
      const { promise, resolve, reject } = Promise.withResolvers<AgentStatus>()
      using _ = topic.subscribe((status) => {
        if (holds(status)) resolve(status)
      })
      signal.addEventListener('abort', () => reject(signal.reason), { once: true })
      return await promise
    },
    onChange: (listener) => topic.subscribe(listener),
    async denials(limit) {
      return (await client.listDenials({ limit })).denials
    },
    async flows() {
      return (await client.listFlows({})).flows
    },
    async [Symbol.asyncDispose]() {
      await loop[Symbol.asyncDispose]()
      local[Symbol.dispose]()
    },
  }
}
