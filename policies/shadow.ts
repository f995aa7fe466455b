// What a request would be answered were the policies in shadow mode enforced with the others.
import type { Request } from './attributes/request.ts'
import type { Guard } from './compile.ts'
import { type Decision, decideShadow } from './decide.ts'

/** Undefined where the decision would be the same. Never throws. */
export function withShadow(
  guard: Guard,
  request: Request,
  decision: Decision,
): Decision | undefined {
  const { allow, rule } = decision
  if (!allow && decision.before !== undefined) return undefined
  const shadow = decideShadow(guard, request)
  if (shadow === undefined || shadow.allow === allow) return undefined
  // a DENY stands above every ALLOW, a rule that matched above one that did not
  if (allow) return shadow.rule !== undefined || rule === undefined ? shadow : undefined
  return rule === undefined ? shadow : undefined
}
