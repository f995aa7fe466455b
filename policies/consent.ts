// What external authorizers have let pass: by the CUSTOM rules for which they were asked. A rule that reads
// otherwise, or names another provider, is one that nobody has consented to.
import type { CompiledRule } from './rules/rule.ts'

export type Consents = ReadonlySet<string>

export const noConsent: Consents = new Set()

export function consentTo({ policy, document }: CompiledRule): string {
  return JSON.stringify([policy.provider, document])
}
