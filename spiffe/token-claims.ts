// The claims that JWT-SVIDs and WIT-SVIDs share: whose token it is, and when it holds (JWT-SVID §3, WIT-SVID §3).
import { explain } from './errors.ts'
import { parseSpiffeId, pathOf, type SpiffeId } from './id.ts'
import { type Jws, quoted, refuseToken, type TokenTime } from './jws.ts'

const second = 1000
// the last one of the year 9999: later ones are milliseconds by mistake, and would never come
const latest = 253_402_300_799

/** A NumericDate (RFC 7519 §2) in milliseconds; undefined when the claim is absent. Throws ERR_UNTRUSTED. */
function dateOf({ payload }: Jws, name: 'exp' | 'nbf' | 'iat'): number | undefined {
  const value = payload[name]
  if (value === undefined) return undefined
  return typeof value === 'number' && value >= 0 && value <= latest
    ? value * second
    : refuseToken(`${name} is ${quoted(value)}, no time in seconds`)
}

const iso = (at: number) => new Date(at).toISOString()

/** `sub`: the workload's SPIFFE ID, which has a path. Throws ERR_UNTRUSTED. */
export function subjectOf({ payload: { sub } }: Jws): SpiffeId {
  if (typeof sub !== 'string') return refuseToken('sub is missing or no text')
  let id: SpiffeId
  try {
    id = parseSpiffeId(sub)
  } catch (cause) {
    return refuseToken(`sub ${explain(cause)}`)
  }
  return pathOf(id) === '' ? refuseToken('sub is a SPIFFE ID without a path') : id
}

/** `exp`, in milliseconds. Throws ERR_UNTRUSTED when it is missing or past. */
export function expiryOf(jws: Jws, { now, leeway }: TokenTime): number {
  const at = dateOf(jws, 'exp') ?? refuseToken('exp is missing')
  return now - leeway < at ? at : refuseToken(`expired at ${iso(at)}`)
}

/** `nbf`, in milliseconds. Throws ERR_UNTRUSTED when it is still to come. */
export function notBeforeOf(jws: Jws, { now, leeway }: TokenTime): number | undefined {
  const at = dateOf(jws, 'nbf')
  if (at === undefined || at <= now + leeway) return at
  return refuseToken(`not valid before ${iso(at)}`)
}

/** `iat`, in milliseconds. It says when, not from when on: one in the future refuses nothing (WIT-SVID §3.6). */
export function issuedAtOf(jws: Jws): number | undefined {
  return dateOf(jws, 'iat')
}

/** Throws TypeError for a leeway that the standard does not allow: a mistake in the program. */
export function timeOf(now: number, leeway: number, most: number): TokenTime {
  if (!(leeway >= 0 && leeway <= most))
    throw new TypeError(`a leeway of ${leeway} ms (0 to ${most})`)
  return { now, leeway }
}
