// What the linter finds in a text; each witness is asked again by the command that scripts use.
import { describe, expect, it } from 'vitest'
import { answerLine } from '../../../policies/cases/evaluate.ts'
import { compile } from '../../../policies/compile.ts'
import { type Mesh, meshDocument, type Profile } from '../../../policies/language/mesh.ts'
import { readPolicies } from '../../../policies/language/read.ts'
import type { Workload } from '../../../policies/lint/ground.ts'
import type { LintRule } from '../../../policies/lint/rule.ts'
import { type Finding, lint } from '../../../policies/lint.ts'
import { policyText } from '../../support/policy-text.ts'

export const now = Date.parse('2030-01-01T00:00:00Z')

export interface Setting {
  readonly profile?: Profile
  readonly mesh?: object
  readonly workloads?: readonly Workload[]
}

export function meshOf({ profile = 'strict', mesh = {} }: Setting): Mesh {
  return { profile, ...meshDocument.parse({ trustDomain: 'td', ...mesh }) }
}

const fail = () => {
  throw new Error('no witness is made of bytes')
}

/** What `castellan policy eval` says to the witness. */
async function answered(text: string, { witness }: Finding, mesh: Mesh) {
  const at = witness.at === undefined ? now : Date.parse(witness.at)
  const set = compile(readPolicies([{ name: 'lint.yaml', text }]), { mesh, now: at })
  const line = JSON.stringify(witness.request)
  return answerLine(line, { set, readBytes: fail, now: () => at }, new Map())
}

export async function found(text: string, setting: Setting = {}): Promise<readonly Finding[]> {
  const mesh = meshOf(setting)
  const { workloads } = setting
  const findings = lint([{ name: 'lint.yaml', text }], { mesh, now, workloads })
  for (const finding of findings) {
    const { decision, policy, rule, status } = await answered(text, finding, mesh)
    const { witness } = finding
    expect({ decision, policy, rule, status }, finding.says).toEqual({
      decision: witness.decision,
      policy: witness.policy,
      rule: witness.rule,
      status: witness.status,
    })
  }
  return findings
}

export interface LintCase extends Setting {
  readonly rule: string
  /** policies in which the rule finds something */
  readonly shows: string
  /** a part of what it says, and of the witness */
  readonly says: RegExp
  readonly witness: RegExp
  /** FILE:LINE and field */
  readonly at: string
  /** policies in which it finds nothing */
  readonly clean: string
  /** instead of the same setting */
  readonly cleanSetting?: Setting
}

/** Each rule of a family: something it finds, and the same mended, in which it finds nothing. */
export function proves(rules: readonly LintRule[], cases: readonly LintCase[]): void {
  describe.each(rules.map((rule) => [rule.name, rule] as const))('%s', (name, { severity }) => {
    const its = cases.filter(({ rule }) => rule === name)
    it('is proven by at least one example', () => expect(its).not.toEqual([]))
    it.each(its)(
      'finds $at and shows it: $witness',
      async ({ shows, says, witness, at, ...it }) => {
        const findings = (await found(shows, it)).filter(({ rule }) => rule === name)
        const [first] = findings
        expect(first?.says).toMatch(says)
        expect(first?.witness.text).toMatch(witness)
        expect(`${first?.file}:${first?.line} ${first?.field}`).toBe(`lint.yaml:${at}`)
        expect(first?.severity).toBe(severity)
        expect(first?.mend).not.toBe('')
      },
    )
    it.each(its)('has nothing to say once mended: $at', async ({ clean, cleanSetting, ...it }) => {
      const findings = await found(clean, cleanSetting ?? it)
      expect(findings.filter(({ rule }) => rule === name)).toEqual([])
    })
  })
}

/** ALLOW and DENY side by side. */
export const both = (allow: string, deny: string) =>
  `${policyText(allow, { name: 'allow' })}---\n${policyText(deny, { name: 'deny', action: 'DENY' })}`
export const allowing = (rules: string) => policyText(rules, { name: 'allow' })

interface Other {
  readonly kind: string
  readonly name?: string
  readonly namespace?: string
}

export const other = (spec: string, { kind, name = 'it', namespace = 'shop' }: Other) =>
  `apiVersion: castellan.dev/v1
kind: ${kind}
metadata: { name: ${name}, namespace: ${namespace} }
spec: ${spec}
`
export const documents = (...texts: readonly string[]) => texts.join('---\n')
export const anybody = '[{ from: [{ source: { principals: ["*"] } }] }]'
