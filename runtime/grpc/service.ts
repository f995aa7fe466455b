// Typed handlers for the methods of a DescService, and their erased form that the server calls.
import {
  create,
  type DescMessage,
  type DescMethod,
  type DescMethodBiDiStreaming,
  type DescMethodClientStreaming,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  type DescService,
  fromBinary,
  type Message,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf'
import { IdentityError } from '../../spiffe/errors.ts'
import { encodeFrame } from './frame.ts'

export interface CallContext<P> {
  readonly method: DescMethod
  /** made once per connection by the server's `peer` */
  readonly peer: P
  /** lower-case names; the values of `-bin` keys stay base64 */
  readonly metadata: ReadonlyMap<string, readonly string[]>
  /** The call is over: cancelled, too late, disconnected or draining; the reason is an IdentityError. */
  readonly signal: AbortSignal
}

const encoded = Symbol('encoded')

export interface Encoded {
  readonly message: Uint8Array
  /** the same with its length prefix, where that is at hand */
  readonly frame?: Uint8Array
}

/** A response that was encoded before; handlers may give it again and again. */
export interface Prepared {
  readonly [encoded]: Encoded
}

/** `bytes` are those of an encoded response message. */
export function prepared(bytes: Uint8Array): Prepared {
  return { [encoded]: { message: bytes, frame: encodeFrame(bytes) } }
}

export type Reply<O extends DescMessage> = MessageInitShape<O> | Prepared

type Unary<I extends DescMessage, O extends DescMessage, P> = (
  request: MessageShape<I>,
  context: CallContext<P>,
) => Reply<O> | Promise<Reply<O>>
type ServerStreaming<I extends DescMessage, O extends DescMessage, P> = (
  request: MessageShape<I>,
  context: CallContext<P>,
) => AsyncIterable<Reply<O>>
type ClientStreaming<I extends DescMessage, O extends DescMessage, P> = (
  requests: AsyncIterable<MessageShape<I>>,
  context: CallContext<P>,
) => Promise<Reply<O>>
type BidiStreaming<I extends DescMessage, O extends DescMessage, P> = (
  requests: AsyncIterable<MessageShape<I>>,
  context: CallContext<P>,
) => AsyncIterable<Reply<O>>

type Handler<M extends DescMethod, P> =
  M extends DescMethodUnary<infer I, infer O>
    ? Unary<I, O, P>
    : M extends DescMethodServerStreaming<infer I, infer O>
      ? ServerStreaming<I, O, P>
      : M extends DescMethodClientStreaming<infer I, infer O>
        ? ClientStreaming<I, O, P>
        : M extends DescMethodBiDiStreaming<infer I, infer O>
          ? BidiStreaming<I, O, P>
          : never

/** A handler that streams has to end once `context.signal` is aborted. */
export type Implementation<S extends DescService, P> = {
  readonly [K in keyof S['method']]?: Handler<S['method'][K], P>
}

/** One method that is served. */
export type Route<P> = { readonly method: DescMethod } & (
  | { readonly kind: 'unary'; readonly handle: Unary<DescMessage, DescMessage, P> }
  | {
      readonly kind: 'server_streaming'
      readonly handle: ServerStreaming<DescMessage, DescMessage, P>
    }
  | {
      readonly kind: 'client_streaming'
      readonly handle: ClientStreaming<DescMessage, DescMessage, P>
    }
  | {
      readonly kind: 'bidi_streaming'
      readonly handle: BidiStreaming<DescMessage, DescMessage, P>
    }
)

export interface Service<P> {
  readonly descriptor: DescService
  /** the methods that have a handler; the others answer UNIMPLEMENTED */
  readonly routes: readonly Route<P>[]
}

function routeOf<P>(method: DescMethod, implementation: object): readonly Route<P>[] {
  // Implementation tied each handler to its method; from here on the descriptor alone knows.
  const handle = Reflect.get(implementation, method.localName)
  if (handle === undefined) return []
  switch (method.methodKind) {
    case 'unary':
      return [{ method, kind: 'unary', handle }]
    case 'server_streaming':
      return [{ method, kind: 'server_streaming', handle }]
    case 'client_streaming':
      return [{ method, kind: 'client_streaming', handle }]
    case 'bidi_streaming':
      return [{ method, kind: 'bidi_streaming', handle }]
  }
}

export function service<S extends DescService, P>(
  descriptor: S,
  implementation: Implementation<S, P>,
): Service<P> {
  const routes = descriptor.methods.flatMap((method) => routeOf<P>(method, implementation))
  return { descriptor, routes }
}

export function decodeRequest(method: DescMethod, bytes: Uint8Array): Message {
  try {
    return fromBinary(method.input, bytes)
  } catch (cause) {
    throw new IdentityError('ERR_BAD_REQUEST', `request is not a ${method.input.typeName}`, {
      cause,
    })
  }
}

function isPrepared(reply: object): reply is Prepared {
  return encoded in reply
}

export function encodeReply(method: DescMethod, reply: Reply<DescMessage>): Encoded {
  if (isPrepared(reply)) return reply[encoded]
  return { message: toBinary(method.output, create(method.output, reply)) }
}

/** The reply with its length prefix. */
export function frameReply(method: DescMethod, reply: Reply<DescMessage>): Uint8Array {
  const { message, frame } = encodeReply(method, reply)
  return frame ?? encodeFrame(message)
}

/** How logs, metrics and callers name a method: `package.Service/Method`. */
export function methodName(method: DescMethod): string {
  return `${method.parent.typeName}/${method.name}`
}
