// Calls that a program makes, as spans whose context goes with them: the server's span is a child of this one.
import type { Interceptor } from '@connectrpc/connect'
import { callAttributes } from './calls.ts'
import type { Tracer } from './span.ts'
import { traceHeader, traceparentOf } from './trace-context.ts'

/** Of a call that streams only the way to its first answer is a span: it may last for days. */
export function traceInterceptors(tracer: Tracer): Interceptor[] {
  if (!tracer.isOn) return []
  return [
    (next) => (request) => {
      const { typeName } = request.service
      const attributes = callAttributes(typeName, request.method.name)
      const name = `${typeName}/${request.method.name}`
      return tracer.span(name, { kind: 'client', attributes }, (span) => {
        request.header.set(traceHeader, traceparentOf(span.context))
        return next(request)
      })
    },
  ]
}
