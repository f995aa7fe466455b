// gRPC calls as spans, in OpenTelemetry's words for them.

import { IdentityError } from '../../spiffe/errors.ts'
import type { CallTrace } from '../grpc/answer.ts'
import { type CallContext, methodName } from '../grpc/service.ts'
import type { Attributes, Tracer } from './span.ts'
import { parseTraceparent, type TraceContext, traceHeader } from './trace-context.ts'

export function callAttributes(service: string, method: string): Attributes {
  return { 'rpc.system': 'grpc', 'rpc.service': service, 'rpc.method': method }
}

function parentOf({ metadata }: Pick<CallContext<unknown>, 'metadata'>): TraceContext | undefined {
  const [text, ...others] = metadata.get(traceHeader) ?? []
  return text === undefined || others.length > 0 ? undefined : parseTraceparent(text)
}

/** What `trace` of a gRPC server wants; calls that are not to be followed, such as endless ones, are left out. */
export function traceCalls<P>(
  tracer: Tracer,
  isFollowed: (context: CallContext<P>) => boolean,
): ((context: CallContext<P>) => CallTrace | undefined) | undefined {
  if (!tracer.isOn) return undefined
  return (context) => {
    if (!isFollowed(context)) return undefined
    const { method } = context
    const span = tracer.begin(methodName(method), {
      kind: 'server',
      parent: parentOf(context),
      attributes: callAttributes(method.parent.typeName, method.name),
    })
    return {
      run: (work) => tracer.within(span, work),
      end(code, error) {
        span.set({ 'rpc.grpc.status_code': code })
        const failed = new IdentityError('ERR_RUNTIME', `the call ended with code ${code}`)
        span.end(code === 0 ? undefined : (error ?? failed))
      },
    }
  }
}
