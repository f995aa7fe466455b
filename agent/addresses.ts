// Where the authority is: one address, or several in turn.
import type { Address } from '../runtime/config.ts'
import { IdentityError } from '../spiffe/errors.ts'

/** Several, where several authorities share a store. */
export interface Addresses {
  readonly count: number
  current(): Address
  /** The next one is current from now on. */
  fail(): void
}

export function createAddresses(all: readonly Address[]): Addresses {
  let at = 0
  const current = () => {
    const address = all[at % all.length]
    if (address === undefined) throw new IdentityError('ERR_CONFIG', 'no address of an authority')
    return address
  }
  return { count: all.length, current, fail: () => void at++ }
}
