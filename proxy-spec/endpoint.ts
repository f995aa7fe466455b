// Where a service is reached, and who is there.
import type { Address } from '../runtime/config.ts'
import type { SpiffeId } from '../spiffe/id.ts'

export interface ServiceEndpoint extends Address {
  /** who said that it serves there; undefined where a configuration names the address alone */
  readonly id?: SpiffeId | undefined
}

/** Those that may be whom the spec expects: who else says to serve it is not even asked. */
export function endpointsFor(
  endpoints: readonly ServiceEndpoint[],
  expect: readonly SpiffeId[],
): readonly ServiceEndpoint[] {
  return endpoints.filter(({ id }) => id === undefined || expect.includes(id))
}
