// What a handler is told of its call.
import type { DescMethod } from '@bufbuild/protobuf'
import type { IdentityError } from '../../spiffe/errors.ts'
import type { CallContext } from './service.ts'

/** Where the abort controller of a call lives; most calls end without one. */
export interface Abortable {
  control: AbortController | undefined
  /** why the handler is told to stop */
  reason: IdentityError | undefined
}

function metadataOf(rawHeaders: readonly string[]): Map<string, readonly string[]> {
  const metadata = new Map<string, string[]>()
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const name = rawHeaders[i] ?? ''
    if (name.startsWith(':')) continue
    const values = metadata.get(name)
    if (values === undefined) metadata.set(name, [rawHeaders[i + 1] ?? ''])
    else values.push(rawHeaders[i + 1] ?? '')
  }
  return metadata
}

/** The parts that few handlers look at are made when they are first asked for. */
export function createContext<P>(
  method: DescMethod,
  peer: P,
  rawHeaders: readonly string[],
  call: Abortable,
): CallContext<P> {
  let metadata: Map<string, readonly string[]> | undefined
  return {
    method,
    peer,
    get metadata() {
      metadata ??= metadataOf(rawHeaders)
      return metadata
    },
    get signal() {
      if (call.control === undefined) {
        call.control = new AbortController()
        if (call.reason !== undefined) call.control.abort(call.reason)
      }
      return call.control.signal
    },
  }
}
