// What policies in shadow mode would change is what they do change once they are enforced.
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { evaluateCase } from '../../policies/cases/evaluate.ts'
import { readCase } from '../../policies/cases/request-line.ts'
import type { Profile } from '../../policies/language/mesh.ts'
import { withShadow } from '../../policies/shadow.ts'
import { evaluatorOf, meshOf } from '../support/differential.ts'
import type { OracleRequest } from '../support/oracle/decide.ts'
import { documents, mesh, type RandomDocument } from '../support/random-policies.ts'
import { request } from '../support/random-requests.ts'

const dryRun = 'istio.io/dry-run'

function enforced(it: RandomDocument): RandomDocument {
  const annotations: Record<string, unknown> = { ...it.metadata.annotations }
  delete annotations[dryRun]
  return { ...it, metadata: { ...it.metadata, annotations } }
}

const isHttp = (it: OracleRequest) => JSON.stringify(it).includes('"http"')

it.each<Profile>(['strict', 'istio'])(
  'withShadow foretells what is enforced later (%s)',
  (profile) => {
    let changed = 0
    fc.assert(
      fc.property(
        mesh,
        documents,
        fc.array(request, { minLength: 20, maxLength: 80 }),
        (its, list, all) => {
          const setting = meshOf(its, profile)
          const now = evaluatorOf(list, setting)
          const later = evaluatorOf(list.map(enforced), setting)
          for (const asked of all.filter(isHttp)) {
            const [one, other] = [now, later].map((evaluator) => {
              const it = readCase(JSON.stringify(asked), setting, new Map())
              return 'problem' in it ? undefined : evaluateCase(it, evaluator)
            })
            if (one === undefined || other === undefined) continue
            if (!('kind' in one) || !('kind' in other)) continue
            if (one.kind !== 'decided' || other.kind !== 'decided') continue
            const would = withShadow(one.guard, one.request, one.decision)
            if (would !== undefined) changed++
            expect((would ?? one.decision).allow).toBe(other.decision.allow)
            if (would !== undefined) expect(would.allow).not.toBe(one.decision.allow)
          }
        },
      ),
      { numRuns: 200 },
    )
    expect(changed).toBeGreaterThan(20)
  },
)
