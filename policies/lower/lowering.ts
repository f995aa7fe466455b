// What lowering one field gives: a predicate that a DENY may only be widened by and an ALLOW only narrowed,
// or the reason why there is none.
import type { IpAddress } from '../attributes/address.ts'
import type { Setting } from '../rules/test.ts'
import type { Predicate } from './predicate.ts'

export type Protocol = 'http' | 'tcp'

export interface Asked {
  readonly texts: readonly string[]
  readonly isNegated: boolean
  /** the header's name in lower case */
  readonly names: readonly string[]
  /** of the destination, where they are known */
  readonly port: number | undefined
  readonly ip: IpAddress | undefined
  readonly protocol: Protocol
}

/**
 * What has to be so at the listener, or the comparison is of something else.
 * plain-slashes: Envoy's `merge_slashes` is off: the guard refuses empty segments, and sees them then.
 * tls-inspector: the listener filter that reads server names.
 * client-address: `use_remote_address`, and as many trusted hops as the mesh has.
 */
export type Demand = 'plain-slashes' | 'tls-inspector' | 'client-address'

export type Lowering =
  | {
      readonly ok: true
      readonly predicate: Predicate
      /** how it differs from the field: a DENY is wider, an ALLOW narrower */
      readonly inexact?: string
      readonly demand?: Demand
    }
  | {
      readonly ok: false
      readonly why: string
      /** the rule never holds, so nothing is lost */
      readonly isHarmless?: boolean
    }

/**
 * `setting.quantifier` says both what the field means and to which side the predicate may err: what is
 * `widest` holds at least wherever the field does, what is `narrowest` at most there.
 */
export type Lower = (asked: Asked, setting: Setting) => Lowering

export const exactly = (predicate: Predicate): Lowering => ({ ok: true, predicate })
export const refusal = (why: string): Lowering => ({ ok: false, why })
