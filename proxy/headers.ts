// Which header fields pass from one side to the other. Raw lists of names and values throughout: an
// object would fold what the other side might read differently.
import type { IncomingMessage } from 'node:http'
import { placeOf } from '../policies/attributes/request.ts'
import { hopByHop, isClaim, ownInRequests, peerIdHeader } from '../proxy-spec/header-names.ts'

/** The host that was decided about: in absolute form that of the target, whatever the field says. */
export function hostOf({ url: target = '', rawHeaders: headers }: IncomingMessage): string {
  return placeOf({ target, host: undefined, headers }).host ?? ''
}

const none: ReadonlySet<string> = new Set()

/** Header names that the sender declares to be for this hop only. */
function namedInConnection(raw: readonly string[]): ReadonlySet<string> {
  let named = none
  for (let i = 0; i < raw.length; i += 2) {
    if (raw[i]?.toLowerCase() !== 'connection') continue
    const names = (raw[i + 1] ?? '').split(',').map((name) => name.trim().toLowerCase())
    named = named.union(new Set(names))
  }
  return named
}

function passing(raw: readonly string[], drops: (name: string) => boolean): string[] {
  const named = namedInConnection(raw)
  const kept: string[] = []
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const name = raw[i] ?? ''
    const lower = name.toLowerCase()
    if (lower.startsWith(':') || hopByHop.has(lower) || named.has(lower) || drops(lower)) continue
    kept.push(name, raw[i + 1] ?? '')
  }
  return kept
}

/** The part of a sidecar that says by which name it speaks of peers. */
export interface Named {
  readonly identityHeader: string
}

/** Whether only a sidecar may set it: by its own name for it, and by the one that others have by default. */
export const isIdentity = (name: string, { identityHeader }: Named) =>
  name === identityHeader || name === peerIdHeader

/** What a peer says of itself under our name is not there, for policies neither. */
export function withoutIdentity(raw: readonly string[], named: Named): readonly string[] {
  const isOurs = (_: string, i: number) => isIdentity(raw[i & ~1]?.toLowerCase() ?? '', named)
  return raw.some((_, i) => i % 2 === 0 && isOurs(_, i)) ? raw.filter((_, i) => !isOurs(_, i)) : raw
}

/** Fields of a request as they are forwarded, without host, framing and `drops`. */
export function passingRequest(
  raw: readonly string[],
  named: Named,
  drops: readonly string[],
): string[] {
  return passing(
    raw,
    (name) =>
      isClaim(name) || isIdentity(name, named) || ownInRequests.has(name) || drops.includes(name),
  )
}

/** Fields of a response as they are passed back. */
export function passingResponse(raw: readonly string[], named: Named): string[] {
  return passing(raw, (name) => isIdentity(name, named))
}
