// Whether this agent drives proxies: what costs nothing where it does not.
import type { Driven } from './driven.ts'

export interface Driving extends AsyncDisposable {
  readonly driven: Driven
}

export const drivesNothing: Driving = {
  driven: {
    of: () => undefined,
    onChange: () => ({ [Symbol.dispose]() {} }),
  },
  async [Symbol.asyncDispose]() {},
}
