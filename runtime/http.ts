// What is HTTP and not on the request path: health and metrics, on Fastify.
import Fastify, { type FastifyInstance } from 'fastify'
import type { Registry } from 'prom-client'
import type { Address } from './config.ts'

export interface OperationsOptions {
  readonly listen: Address
  /** why the program is not ready; undefined when it is */
  readonly notReady: () => Promise<string | undefined>
  readonly metrics: Registry
}

export interface OperationsServer extends AsyncDisposable {
  readonly port: number
}

/** Nothing is coerced, dropped or defaulted behind the sender's back. */
export function createHttp(): FastifyInstance {
  return Fastify({
    bodyLimit: 1024 * 1024,
    requestTimeout: 10_000,
    ajv: { customOptions: { coerceTypes: false, removeAdditional: false, useDefaults: false } },
  })
}

/** `/livez` says that the process answers, `/readyz` that it can do its work, `/metrics` is Prometheus'. */
export async function startOperations(options: OperationsOptions): Promise<OperationsServer> {
  const { listen, notReady, metrics } = options
  const app = createHttp()
  app.get('/livez', async () => 'ok\n')
  app.get('/readyz', async (_, reply) => {
    const reason = await notReady()
    return reason === undefined ? 'ok\n' : reply.code(503).send(`not ready: ${reason}\n`)
  })
  app.get('/metrics', async (_, reply) =>
    reply.type(metrics.contentType).send(await metrics.metrics()),
  )
  await app.listen({ host: listen.host, port: listen.port })
  const bound = app.server.address()
  const port = typeof bound === 'object' && bound !== null ? bound.port : 0
  return { port, [Symbol.asyncDispose]: () => app.close() }
}
