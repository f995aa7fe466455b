// What a call throws: the code and the whole line of messages, so that a test can hold both.
import { explain, IdentityError } from '../../spiffe/errors.ts'

export interface Refusal {
  readonly code: string
  readonly message: string
}

/** The refusal of `call`; undefined when it returned. Anything but an IdentityError is thrown on. */
export function refusalOf(call: () => unknown): Refusal | undefined {
  try {
    call()
    return undefined
  } catch (error) {
    if (!(error instanceof IdentityError)) throw error
    return { code: error.code, message: explain(error) }
  }
}
