// /livez, /readyz and /metrics of an agent.
import { Registry } from 'prom-client'
import { type OperationsServer, startOperations } from '../runtime/http.ts'
import type { Core } from './core.ts'
import { type ShownParts, showAgent } from './metrics.ts'

export interface AgentOperationsOptions extends ShownParts {
  readonly listen: Parameters<typeof startOperations>[0]['listen']
}

/** Throws with the address when it cannot be listened on. */
export async function startAgentOperations(
  core: Core,
  { listen, ...parts }: AgentOperationsOptions,
): Promise<OperationsServer> {
  const registry = new Registry()
  await using starting = new AsyncDisposableStack()
  starting.use(showAgent(registry, core, parts))
  const { port } = starting.use(
    await startOperations({
      listen,
      metrics: registry,
      notReady: async () =>
        core.knowledge.isComplete() ? undefined : 'it has not heard from its authority yet',
    }),
  )
  core.log.info({ host: listen.host, port }, 'metrics')
  const running = starting.move()
  return { port, [Symbol.asyncDispose]: () => running.disposeAsync() }
}
