// A policy that was read: what decisions need of a document, and where it stands.
import type { Pattern } from '../rules/pattern.ts'
import type { Action } from '../rules/quantify.ts'
import type { RuleDocument } from './authorization.ts'

export type Labels = Readonly<Record<string, string>>

export interface Policy {
  readonly namespace: string
  readonly name: string
  readonly action: Action
  /** as written */
  readonly rules: readonly RuleDocument[]
  /** labels that a workload has to have, all of them */
  readonly selector: Labels | undefined
  /** patterns of the SPIFFE IDs it speaks of, without scheme, instead of a namespace */
  readonly targets: readonly Pattern[] | undefined
  /** it speaks of a gateway or a service, and so of no workload */
  readonly isElsewhere: boolean
  /** evaluated and reported, never enforced */
  readonly isShadow: boolean
  /** milliseconds since 1970; from then on its rules match nothing */
  readonly expires: number | undefined
  readonly provider: string | undefined
  /** whether it is written in Istio's own language */
  readonly isIstio: boolean
  /** rules of the linter that say nothing of it */
  readonly excused: readonly string[]
  readonly file: string
  /** line of the document, from 1 */
  readonly line: number
  /** lines of the rules in the file, from 1 */
  readonly lines: readonly number[]
}

export function policyName({ namespace, name }: Pick<Policy, 'namespace' | 'name'>): string {
  return `${namespace}/${name}`
}
