// What is under way, decided again by another set of policies: as if it were asked for now, but for its token,
// which had to hold when it was shown.
import { isRejection, type Rejection, type Request } from './attributes/request.ts'
import type { Guard, PolicySet } from './compile.ts'
import type { Consents } from './consent.ts'
import { type Decision, decideBy } from './decide.ts'

export interface Reconsidered {
  readonly decision: Decision
  readonly request: Request
  readonly guard: Guard
}

/** What is known of the first decision. */
export interface Former {
  /** when it was made, milliseconds since 1970 */
  readonly at: number
  /** authorizers are not asked again: what they consented to counts as long as the rule says the same */
  readonly consents?: Consents | undefined
}

/** Never throws. */
export function reconsider(
  set: PolicySet,
  request: Request,
  { at, consents }: Former,
): Reconsidered | Rejection {
  const guard = set.guardOf(request.destination)
  if (request.http === undefined) return { decision: decideBy(guard, request), request, guard }
  const authenticated = guard.authentication.authenticate(request.http, at)
  if (isRejection(authenticated)) return authenticated
  const again = { ...request, claims: authenticated.claims }
  return { decision: decideBy(guard, again, consents), request: again, guard }
}
