import { scopeRules } from '../../../policies/lint/scopes.ts'
import { parseSpiffeId } from '../../../spiffe/id.ts'
import { type LintCase, other, proves } from './found.ts'

const workload = (id: string, labels: Record<string, string>) => ({
  id: parseSpiffeId(`spiffe://${id}`),
  namespace: 'shop',
  labels,
  tcp: [],
})
const workloads = [
  workload('td/ns/shop/sa/web', { app: 'web', tier: 'front' }),
  workload('td/ns/shop/sa/db', { app: 'db' }),
]
const policy = (whom: string) =>
  other(`{ ${whom}, rules: [{ from: [{ source: { principals: [td/a] } }] }] }`, {
    kind: 'AuthorizationPolicy',
  })

const cases: readonly LintCase[] = [
  {
    rule: 'selects-nothing',
    workloads,
    shows: policy('selector: { matchLabels: { app: webb, tier: front } }'),
    says: /^shop\/it speaks of none of the 2 workloads that are known$/,
    witness:
      /^spiffe:\/\/td\/a .* → spiffe:\/\/td\/ns\/shop\/sa\/web {app=web, tier=front}.*denied/,
    at: '4 spec.selector',
    clean: policy('selector: { matchLabels: { app: web, tier: front } }'),
  },
  {
    rule: 'selects-nothing',
    workloads,
    shows: policy('targets: [td/ns/shop/sa/wen]'),
    says: /speaks of none/,
    witness: /sa\/web.*: denied/,
    at: '4 spec.targets',
    clean: policy('targets: ["td/ns/shop/*"]'),
  },
  {
    rule: 'selects-nothing',
    workloads,
    shows: policy('selector: { matchLabels: { app: webb } }'),
    says: /speaks of none/,
    witness: /denied/,
    at: '4 spec.selector',
    // who says nothing of workloads is not told
    clean: policy('selector: { matchLabels: { app: webb } }'),
    cleanSetting: {},
  },
  {
    rule: 'of-no-workload',
    shows: policy('targetRefs: [{ kind: Service, name: web }]'),
    says: /^shop\/it has targetRefs/,
    witness: /^spiffe:\/\/td\/a .*: denied/,
    at: '4 spec.targetRefs',
    clean: policy('selector: { matchLabels: { app: web } }'),
  },
]

proves(scopeRules, cases)
