// A stream of the Workload API, followed for as long as its source lives.
import { type Client, Code, ConnectError, createClient } from '@connectrpc/connect'
import { SpiffeWorkloadAPI } from '../proto/gen/spiffe/workload/workloadapi_pb.js'
import { createBackoff } from '../runtime/backoff.ts'
import { systemClock } from '../runtime/clock.ts'
import { createTopic, run } from '../runtime/lifecycle.ts'
import type { Endpoint } from './endpoint.ts'
import type { Followed, SourceOptions } from './followed.ts'
import { untilAborted } from './signals.ts'
import { openTransport, securityHeader } from './transport.ts'

export interface Stream<Message, T> {
  readonly open: (
    client: Client<typeof SpiffeWorkloadAPI>,
    options: { readonly signal: AbortSignal },
  ) => AsyncIterable<Message>
  /** Reads one message, which is complete state: nothing of earlier ones is kept (Workload API §4.4). */
  readonly read: (message: Message) => T
}

const final: ReadonlySet<Code> = new Set([Code.InvalidArgument, Code.Unimplemented])

/**
 * Reads the stream until disposed, with backoff between attempts. The last good state is kept while the
 * endpoint is away and dropped when it answers PermissionDenied (Workload API §5.2.1).
 */
export function followStream<Message, T>(
  endpoint: Endpoint,
  { open, read }: Stream<Message, T>,
  { clock = systemClock, onTrouble = () => {} }: SourceOptions,
): Followed<T> {
  const topic = createTopic<T | undefined>()
  const first = Promise.withResolvers<T>()
  first.promise.catch(() => {})
  let current: T | undefined
  let trouble: unknown

  function publish(state: T | undefined): void {
    current = state
    if (state !== undefined) first.resolve(state)
    topic.publish(state)
  }

  async function follow(signal: AbortSignal, backoff: { reset(): void }): Promise<void> {
    using local = openTransport(endpoint, { interceptors: [securityHeader] })
    const client = createClient(SpiffeWorkloadAPI, local.transport)
    for await (const message of open(client, { signal })) {
      publish(read(message))
      trouble = undefined
      backoff.reset()
    }
  }

  const loop = run(async (signal) => {
    const backoff = createBackoff({ first: 50, cap: 2000 })
    while (!signal.aborted) {
      try {
        await follow(signal, backoff)
      } catch (error) {
        if (signal.aborted) return
        const code = error instanceof ConnectError ? error.code : undefined
        if (code === Code.PermissionDenied && current !== undefined) publish(undefined)
        trouble = error
        onTrouble(error)
        if (code !== undefined && final.has(code)) {
          first.reject(error)
          return
        }
      }
      await clock.sleep(backoff.next(), { signal })
    }
  })

  return {
    current: () => current,
    ready: (signal) => untilAborted(first.promise, signal),
    trouble: () => trouble,
    subscribe: (listener) => topic.subscribe(listener),
    [Symbol.asyncDispose]: () => loop[Symbol.asyncDispose](),
  }
}
