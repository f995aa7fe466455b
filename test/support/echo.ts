// An Echo service that does what its requests ask, and tells a test what becomes of its handlers.
import { EventEmitter } from 'node:events'
import { Echo, type EchoRequest } from '../../proto/gen/castellan/test/v1/echo_pb.js'
import { type GrpcServerOptions, startGrpcServer } from '../../runtime/grpc/server.ts'
import { type CallContext, type Service, service } from '../../runtime/grpc/service.ts'
import { type ErrorCode, IdentityError, meanings } from '../../spiffe/errors.ts'

/** `hanging`, `aborted` (with the reason) and `returned`, each when it happens to a handler. */
export type EchoEvents = EventEmitter<{
  hanging: []
  aborted: [reason: unknown]
  returned: [sent: number]
  read: [text: string]
}>

function isCode(text: string): text is ErrorCode {
  return Object.hasOwn(meanings, text)
}

function failAsAsked({ fail }: EchoRequest): void {
  if (fail === '') return
  if (!isCode(fail)) throw new Error(`a secret that stays here: ${fail}`)
  const fields = [{ field: 'fail', problem: 'asked for it' }]
  throw new IdentityError(fail, `asked to fail, 100 % “${fail}”`, { fields, retryAfter: 1500 })
}

async function hang(signal: AbortSignal, events: EchoEvents): Promise<never> {
  const aborted = new Promise<void>((resolve) => {
    signal.addEventListener('abort', () => resolve(), { once: true })
    if (signal.aborted) resolve()
  })
  events.emit('hanging')
  await aborted
  events.emit('aborted', signal.reason)
  throw signal.reason
}

export function echoService<P>(events: EchoEvents = new EventEmitter()): Service<P> {
  return service(Echo, {
    async unary(request, { signal }: CallContext<P>) {
      if (request.hang) await hang(signal, events)
      failAsAsked(request)
      return { text: request.text, payload: request.payload, number: request.count }
    },
    async *expand(request, { signal }: CallContext<P>) {
      let number = 0
      try {
        for (; number < request.count; number++) {
          yield { text: request.text, payload: request.payload, number }
        }
        if (request.hang) await hang(signal, events)
        failAsAsked(request)
      } finally {
        events.emit('returned', number)
      }
    },
    async collect(requests) {
      const texts: string[] = []
      for await (const request of requests) {
        failAsAsked(request)
        texts.push(request.text)
      }
      return { text: texts.join(','), number: texts.length }
    },
    async *chat(requests, { signal }: CallContext<P>) {
      let number = 0
      try {
        for await (const request of requests) {
          events.emit('read', request.text)
          failAsAsked(request)
          yield { text: request.text, payload: request.payload, number: number++ }
          if (request.hang) await hang(signal, events)
        }
      } finally {
        events.emit('returned', number)
      }
    },
  })
}

/** An Echo server on a free port of the loopback, unless `options` say otherwise. */
export async function startEcho(options: Partial<GrpcServerOptions<string>> = {}) {
  const events: EchoEvents = new EventEmitter()
  const server = await startGrpcServer<string>({
    listen: { host: '127.0.0.1', port: 0 },
    services: [echoService(events)],
    peer: (socket) => `${socket.remoteAddress}:${socket.remotePort}`,
    ...options,
  })
  return { server, events, [Symbol.asyncDispose]: () => server[Symbol.asyncDispose]() }
}
