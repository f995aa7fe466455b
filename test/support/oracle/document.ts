// Policies as their YAML says them, taken as valid.

export interface Condition {
  readonly key: string
  readonly values: readonly string[]
  readonly notValues: readonly string[]
}

/** A source or an operation: name of a field, `not…` included, to its values. */
export type Fields = Readonly<Record<string, readonly string[]>>

export interface Rule {
  /** undefined: absent */
  readonly from: readonly Fields[] | undefined
  readonly to: readonly Fields[] | undefined
  readonly when: readonly Condition[]
}

export interface Document {
  readonly kind: string
  readonly name: string
  readonly namespace: string
  readonly labels: Readonly<Record<string, string>>
  readonly targeted: boolean
  readonly dryRun: boolean
  readonly action: string
  readonly rules: readonly Rule[]
  readonly jwtRules: readonly JwtRule[]
}

export interface JwtRule {
  readonly issuer: string | undefined
  readonly spaceDelimitedClaims: readonly string[]
}

export const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const record = (value: unknown): Readonly<Record<string, unknown>> => (isRecord(value) ? value : {})
const list = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : [])
const textList = (value: unknown): readonly string[] => list(value).map(String)
const textMap = (value: unknown): Readonly<Record<string, string>> =>
  Object.fromEntries(Object.entries(record(value)).map(([key, each]) => [key, String(each)]))

/** Items of `from` or `to`, each wrapped in `source` or `operation`; any empty list is an absent one. */
function wrapped(value: unknown, wrapper: string): readonly Fields[] | undefined {
  const items = list(value)
  if (items.length === 0) return undefined
  return items.map((item) => {
    const fields = Object.entries(record(record(item)[wrapper]))
    const named = fields.map(([name, values]) => [name, textList(values)] as const)
    return Object.fromEntries(named.filter(([, values]) => values.length > 0))
  })
}

const condition = (value: unknown): Condition => ({
  key: String(record(value).key),
  values: textList(record(value).values),
  notValues: textList(record(value).notValues),
})

const rule = (value: unknown): Rule => ({
  from: wrapped(record(value).from, 'source'),
  to: wrapped(record(value).to, 'operation'),
  when: list(record(value).when).map(condition),
})

const jwtRule = (value: unknown): JwtRule => {
  const { issuer, spaceDelimitedClaims } = record(value)
  return {
    issuer: typeof issuer === 'string' ? issuer : undefined,
    spaceDelimitedClaims: textList(spaceDelimitedClaims),
  }
}

/** What Go's strconv takes for true; anything else is enforced (§4.14). */
const yes = ['1', 't', 'T', 'true', 'TRUE', 'True']

export function readDocument(value: unknown): Document {
  const metadata = record(record(value).metadata)
  const spec = record(record(value).spec)
  return {
    kind: String(record(value).kind),
    name: String(metadata.name),
    namespace: String(metadata.namespace ?? 'default'),
    labels: textMap(record(spec.selector).matchLabels),
    targeted: spec.targetRef !== undefined || list(spec.targetRefs).length > 0,
    dryRun: yes.includes(textMap(metadata.annotations)['istio.io/dry-run'] ?? ''),
    action: String(spec.action ?? 'ALLOW'),
    rules: list(spec.rules).map(rule),
    jwtRules: list(spec.jwtRules).map(jwtRule),
  }
}
