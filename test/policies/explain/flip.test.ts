// Whatever change is offered, done as it says, flips the decision.
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { readCase } from '../../../policies/cases/request-line.ts'
import { compile, type PolicySet } from '../../../policies/compile.ts'
import { evaluateHttp, evaluateTcp } from '../../../policies/evaluate.ts'
import { explainDecision } from '../../../policies/explain.ts'
import { type Mesh, meshDocument, type Profile } from '../../../policies/language/mesh.ts'
import { readPolicies } from '../../../policies/language/read.ts'
import { applied } from './applied.ts'
import { documents, request } from './random.ts'

const now = Date.parse('2030-01-01T00:00:00Z')

function setOf(all: readonly object[], mesh: Mesh): PolicySet {
  const text = all.map((it) => `${JSON.stringify(it)}\n`).join('---\n')
  return compile(readPolicies([{ name: 'random.yaml', text }]), { mesh, now })
}

function decided(set: PolicySet, line: object) {
  const it = readCase(JSON.stringify(line), set.mesh, new Map())
  if ('problem' in it) throw new Error(it.problem)
  const { connected, asked } = it
  if (asked.as !== 'http') return evaluateTcp(set, connected)
  const result = evaluateHttp(set, connected, { raw: asked.raw, claims: asked.claims, now })
  if (result.kind === 'rejected') throw new Error(result.rejection.reason)
  return result
}

it.each<[Profile, object]>([
  ['strict', {}],
  ['strict', { backend: 'caseless' }],
  ['istio', {}],
  ['istio', { pathNormalization: 'decode-and-merge-slashes', defaultAction: 'deny' }],
])('a change that is offered, done as it says, flips the decision: %s %j', (profile, more) => {
  const mesh: Mesh = { profile, ...meshDocument.parse({ trustDomain: 'td', ...more }) }
  const counts = new Map<string, number>()
  const count = (what: string) => counts.set(what, (counts.get(what) ?? 0) + 1)
  fc.assert(
    fc.property(documents, fc.array(request, { minLength: 4, maxLength: 4 }), (all, lines) => {
      const set = setOf(all, mesh)
      for (const line of lines) {
        const { decision, request: asked } = decided(set, line)
        const { edits, remedy } = explainDecision(set, asked, decision)
        const kind = `${decision.allow} ${decision.rule?.policy.action ?? 'default'}`
        count(edits.length === 0 ? `${kind}: none` : kind)
        for (const it of edits) count(it.do)
        if (edits.length === 0) {
          expect(remedy).toBe('')
          // whoever has an identity or an address can always be told
          expect(asked.source ?? asked.sourceIp, kind).toBeUndefined()
          continue
        }
        const changed = setOf(applied(all, edits), mesh)
        expect(decided(changed, line).decision.allow, remedy).toBe(!decision.allow)
      }
    }),
    { numRuns: 25 },
  )
  for (const what of ['add', 'create']) expect(counts.get(what)).toBeGreaterThan(0)
})
