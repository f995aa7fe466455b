// A second interpreter of policies, written from authorization.md §4.2-4.5 and §4.9 alone and as slow as
// it likes. It shares no line with policies/: what both say alike is said by two.

interface NaiveRule {
  readonly from?: readonly { readonly source: Fields }[] | undefined
  readonly to?: readonly { readonly operation: Fields }[] | undefined
}

interface Fields {
  readonly principals?: readonly string[] | undefined
  readonly methods?: readonly string[] | undefined
  readonly paths?: readonly string[] | undefined
  readonly ports?: readonly string[] | undefined
}

export interface NaivePolicy {
  readonly namespace: string
  readonly action: 'ALLOW' | 'DENY'
  readonly rules: readonly NaiveRule[]
}

export interface NaiveRequest {
  /** `spiffe://…`; undefined on a connection without identity */
  readonly peer: string | undefined
  readonly namespace: string
  readonly port: number
  /** the path as forwarded, and every way to read it */
  readonly http: { method: string; path: string; readings: readonly string[] } | undefined
}

/** §4.4, as a regular expression. */
function patternHolds(pattern: string, value: string): boolean {
  if (pattern === '*') return value.length > 0
  const text = pattern.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
  const source = text.replace(/^\\\*/, '.*').replace(/\\\*$/, '.*')
  return new RegExp(`^${source}$`, 's').test(value)
}

function anyOf(patterns: readonly string[], values: readonly string[]): boolean {
  return patterns.flatMap((p) => values.map((v) => patternHolds(p, v))).includes(true)
}

/** §4.5: the values that a set field is compared with. */
function fieldsHold(fields: Fields, request: NaiveRequest, paths: readonly string[]): boolean {
  const { peer, port, http } = request
  const answers: boolean[] = []
  if (fields.principals) {
    // an exact value gets the scheme put before it, the others are about what follows the scheme
    answers.push(anyOf(fields.principals, peer ? [peer.replace('spiffe://', '')] : []))
  }
  if (fields.ports) answers.push(fields.ports.map(Number).includes(port))
  if (fields.methods && http) answers.push(anyOf(fields.methods, [http.method]))
  if (fields.paths && http) answers.push(anyOf(fields.paths, paths))
  return !answers.includes(false)
}

const namesHttp = (rule: NaiveRule) =>
  (rule.to ?? []).some(({ operation }) => operation.methods || operation.paths)

/** §4.3: absent or some, on both sides. */
function ruleHolds(rule: NaiveRule, request: NaiveRequest, paths: readonly string[]): boolean {
  const from = rule.from?.map(({ source }) => fieldsHold(source, request, paths)) ?? [true]
  const to = rule.to?.map(({ operation }) => fieldsHold(operation, request, paths)) ?? [true]
  return from.includes(true) && to.includes(true)
}

/** §4.2 in the strict profile: without an ALLOW that matches, no. */
export function naiveAllows(policies: readonly NaivePolicy[], request: NaiveRequest): boolean {
  const inScope = policies.filter((it) =>
    [request.namespace, 'istio-system'].includes(it.namespace),
  )
  for (const { action, rules } of inScope) {
    if (action !== 'DENY') continue
    if (rules.some((rule) => ruleHolds(rule, request, request.http?.readings ?? []))) return false
  }
  return inScope.some(({ action, rules }) => {
    if (action !== 'ALLOW') return false
    // §4.9: on TCP an ALLOW rule with any HTTP field is removed whole
    const usable = request.http ? rules : rules.filter((rule) => !namesHttp(rule))
    return usable.some((rule) => ruleHolds(rule, request, request.http ? [request.http.path] : []))
  })
}
