// A Workload API on our own gRPC server that says what a test tells it to, and a source that follows it.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Endpoint } from '../../client/endpoint.ts'
import type { Followed, SourceOptions } from '../../client/followed.ts'
import { SpiffeWorkloadAPI } from '../../proto/gen/spiffe/workload/workloadapi_pb.js'
import { type GrpcServer, startGrpcServer } from '../../runtime/grpc/server.ts'
import { type CallContext, type Implementation, service } from '../../runtime/grpc/service.ts'
import { createLatest } from '../../runtime/lifecycle.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import { createFakeClock, type FakeClock } from '../support/fake-clock.ts'

export type Handlers = Implementation<typeof SpiffeWorkloadAPI, undefined>

export interface TestApi extends AsyncDisposable {
  readonly endpoint: Endpoint
  readonly server: GrpcServer
}

export async function startWorkloadApi(handlers: Handlers): Promise<TestApi> {
  const folder = await mkdtemp(join(tmpdir(), 'castellan-api-'))
  const path = join(folder, 'api.sock')
  const server = await startGrpcServer({
    listen: { path, mode: 0o600 },
    peer: () => undefined,
    drainTimeout: 100,
    services: [service<typeof SpiffeWorkloadAPI, undefined>(SpiffeWorkloadAPI, handlers)],
  })
  return {
    endpoint: { kind: 'unix', path },
    server,
    async [Symbol.asyncDispose]() {
      await server[Symbol.asyncDispose]()
      await rm(folder, { recursive: true })
    },
  }
}

export interface Channel<Message> {
  /** the handler of a streaming method */
  readonly stream: (request: unknown, context: CallContext<undefined>) => AsyncGenerator<Message>
  /** To the stream that is open, or to the next one; an error ends it. */
  say(next: Message | IdentityError): void
  /** Ends the stream that is open as if all had been said. */
  end(): void
  /** What is said from now on is for the next stream. */
  forget(): void
  /** those of the security header, of each request */
  readonly headers: readonly (readonly string[] | undefined)[]
}

export function createChannel<Message>(): Channel<Message> {
  type Said = { readonly next: Message | IdentityError } | undefined
  const headers: (readonly string[] | undefined)[] = []
  let feed: ((said: Said) => void) | undefined
  let pending: Said
  return {
    headers,
    async *stream(_, { metadata, signal }) {
      headers.push(metadata.get('workload.spiffe.io'))
      using mine = createLatest<Said>(signal)
      feed = mine.push
      if (pending !== undefined) mine.push(pending)
      pending = undefined
      for await (const said of mine) {
        if (said === undefined) return
        if (said.next instanceof IdentityError) {
          feed = undefined
          throw said.next
        }
        yield said.next
      }
    },
    say(next) {
      if (feed === undefined) pending = { next }
      else feed({ next })
    },
    end() {
      feed?.(undefined)
      feed = undefined
    },
    forget() {
      feed = undefined
    },
  }
}

/** A clock that counts who begins to wait. */
export function countingClock(): FakeClock & { waits(): number } {
  const fake = createFakeClock()
  let waits = 0
  return {
    ...fake,
    get sleepers() {
      return fake.sleepers
    },
    sleep(ms, options) {
      waits++
      return fake.sleep(ms, options)
    },
    waits: () => waits,
  }
}

export interface Watched<Message, T, Source extends Followed<T>>
  extends Channel<Message>,
    AsyncDisposable {
  readonly source: Source
  readonly server: GrpcServer
  readonly clock: FakeClock
  readonly troubles: readonly unknown[]
  /** Resolves with the change that saying `next` made. */
  change(next: Message | IdentityError): Promise<T | undefined>
  /** Resolves with the trouble that saying `next` made. */
  trouble(next: Message | IdentityError): Promise<unknown>
  /** how often the source began to wait for its next attempt */
  waits(): number
  /** Lets the source try again. */
  retry(): Promise<void>
}

export interface WatchedOptions<Message, Source> {
  readonly handlers: (stream: Channel<Message>['stream']) => Handlers
  readonly start: (endpoint: Endpoint, options: SourceOptions) => Source
}

/** A source on a test API that has one stream. */
export async function watch<Message, T, Source extends Followed<T>>(
  options: WatchedOptions<Message, Source>,
): Promise<Watched<Message, T, Source>> {
  const channel = createChannel<Message>()
  const api = await startWorkloadApi(options.handlers(channel.stream))
  const clock = countingClock()
  const troubles: unknown[] = []
  let troubled = Promise.withResolvers<void>()
  const onTrouble = (error: unknown) => {
    channel.forget()
    troubles.push(error)
    troubled.resolve()
  }
  const source = options.start(api.endpoint, { clock, onTrouble })
  return {
    ...channel,
    source,
    server: api.server,
    clock,
    troubles,
    async change(next) {
      const changed = Promise.withResolvers<T | undefined>()
      using _ = source.subscribe(changed.resolve)
      channel.say(next)
      return await changed.promise
    },
    async trouble(next) {
      troubled = Promise.withResolvers<void>()
      channel.say(next)
      await troubled.promise
      return troubles.at(-1)
    },
    waits: clock.waits,
    async retry() {
      await clock.asleep()
      await clock.advance(60_000)
    },
    async [Symbol.asyncDispose]() {
      await source[Symbol.asyncDispose]()
      await api[Symbol.asyncDispose]()
    },
  }
}
