// What xDS carries: named resources with versions, what a client wants of them, what there is for it.
import { hash } from 'node:crypto'
import type { Any } from '@bufbuild/protobuf/wkt'
import { IdentityError } from '../../spiffe/errors.ts'

export interface Resource {
  readonly name: string
  /** another one for other content, and for that only; tells nothing of secrets */
  readonly version: string
  readonly pack: () => Any
}

export interface Wanted {
  readonly names: ReadonlySet<string>
  /** the wildcard: what has a name of its own, as far as the client may have it */
  readonly everything: boolean
}

/** What there is now of what is wanted. A name that was given is in one of the three. */
export interface Offer {
  readonly resources: ReadonlyMap<string, Resource>
  /** on its way: neither given nor denied yet */
  readonly pending: ReadonlySet<string>
  /** not for this client, and why */
  readonly absent: ReadonlyMap<string, string>
  /** everything there is: who asks for everything is told so, also when that is nothing */
  readonly isWhole?: boolean
  /** milliseconds since the epoch at which to look again without a change */
  readonly until?: number
}

/** Subscriptions add up: without a limit one stream could make us hold as many names as it likes. */
const mostNames = 4096

/** Throws ERR_EXHAUSTED. */
export function boundNames(names: ReadonlySet<string>): void {
  if (names.size <= mostNames) return
  throw new IdentityError('ERR_EXHAUSTED', `more than ${mostNames} names on one stream`)
}

/** One word for the whole of an offer: the same on every stream that has the same. */
export function versionOf({ resources }: Pick<Offer, 'resources'>): string {
  const lines = [...resources.values()].map(({ name, version }) => `${name} ${version}\n`)
  return hash('sha256', lines.sort().join(''), 'base64url').slice(0, 16)
}

/** Of times, in milliseconds since the epoch. */
export const earliest = (...times: readonly (number | undefined)[]): number | undefined => {
  const all = times.filter((it) => it !== undefined)
  return all.length === 0 ? undefined : Math.min(...all)
}
