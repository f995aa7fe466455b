// What a request has for a field of a rule: as a policy would write it, and for people.
import { addressText } from '../attributes/address.ts'
import type { Request } from '../attributes/request.ts'
import type { Mesh } from '../language/mesh.ts'
import type { Attribute, RuleField } from '../language/rule-fields.ts'
import { claimValues, requestPrincipalOf } from '../rules/claims.ts'
import { identityOf, principalOf, trustDomainOf } from '../rules/identity.ts'
import { patternOf } from '../rules/pattern.ts'
import type { CompiledRule } from '../rules/rule.ts'

// Paths are the caller's to choose, and 8 KiB long if it likes; explanations are kept and sent on.
const longestPath = 512

export function shortened(path: string): string {
  return path.length > longestPath ? `${path.slice(0, longestPath)}…` : path
}

export const hidden = '(hidden)'

const secretName =
  /^(?:authorization|proxy-authorization|cookie|set-cookie|jti|nonce|sid|at_hash|c_hash)$|token|secret|passw|api-?key|credential/i

/** Whether what a name stands for may let its reader act as somebody else. */
export function isSecret(name: string): boolean {
  return secretName.test(name)
}

/** Of a field: a header or a claim may be secret, by its name. */
export function holdsSecret({ attribute, names }: Pick<RuleField, 'attribute' | 'names'>): boolean {
  return (attribute === 'header' || attribute === 'claim') && names.some(isSecret)
}

interface Asked {
  readonly names: readonly string[]
  readonly mesh: Mesh
  /** an ALLOW has to match every certain reading of a path */
  readonly isAllow: boolean
}

type ValuesOf = (request: Request, asked: Asked) => readonly (string | undefined)[]

function accountOf(id: string): string | undefined {
  const { namespace, serviceAccount } = identityOf(id)
  return namespace === undefined ? undefined : `${namespace}/${serviceAccount}`
}

const ofId =
  (part: (id: string) => string | undefined): ValuesOf =>
  ({ source }) => [source === undefined ? undefined : part(source)]

const ofAddress =
  (which: (request: Request) => Request['sourceIp']): ValuesOf =>
  (request) => {
    const address = which(request)
    return [address === undefined ? undefined : addressText(address)]
  }

const readings = ({ http }: Request, { isAllow }: Asked) =>
  http === undefined ? [] : isAllow ? http.certain : http.readings

const table: Readonly<Record<Attribute, ValuesOf>> = {
  principals: ofId(principalOf),
  namespaces: ofId((id) => identityOf(id).namespace),
  serviceAccounts: ofId(accountOf),
  trustDomains: ofId(trustDomainOf),
  ipBlocks: ofAddress(({ sourceIp }) => sourceIp),
  remoteIpBlocks: ofAddress(({ remoteIp }) => remoteIp),
  requestPrincipals: ({ claims }) =>
    requestPrincipalOf(claims).map(({ issuer, subject }) =>
      issuer === undefined || subject === undefined ? undefined : `${issuer}/${subject}`,
    ),
  hosts: ({ http }) => [http?.host?.name],
  ports: ({ destination: { port } }) => [port?.toString()],
  methods: ({ http }) => [http?.method],
  paths: readings,
  target: (request, asked) => readings(request, asked).map((path) => path + request.http?.query),
  header: ({ http }, { names: [name = ''] }) => http?.headers.values(name) ?? [],
  claim: ({ claims }, { names, mesh }) => claimValues(claims, names, mesh.profile),
  destinationIp: ofAddress(({ destination: { ip } }) => ip),
  sni: ({ sni }) => [sni],
  metadata: () => [],
}

type FieldOfRule = Pick<RuleField, 'attribute' | 'names'>

/** What the request has, in the order it has it; empty when it has none. */
export function valuesOf(
  { attribute, names }: FieldOfRule,
  request: Request,
  { policy, mesh }: Pick<CompiledRule, 'policy' | 'mesh'>,
): readonly string[] {
  const asked: Asked = { names, mesh, isAllow: policy.action === 'ALLOW' }
  return table[attribute](request, asked).filter((it) => it !== undefined)
}

/** Whether a policy that writes the text means it and nothing else. */
export function isLiteral(text: string): boolean {
  return (
    text !== '' &&
    text.length <= longestPath &&
    patternOf(text).kind === 'exact' &&
    !/[{}*]/.test(text)
  )
}

/** The values as a policy writes them; undefined when one cannot be written so, or should not be. */
export function literalValues(
  field: FieldOfRule,
  request: Request,
  rule: Pick<CompiledRule, 'policy' | 'mesh'>,
): readonly string[] | undefined {
  if (holdsSecret(field)) return undefined
  const values = [...new Set(valuesOf(field, request, rule))]
  return values.length > 0 && values.every(isLiteral) ? values : undefined
}

/** For people; undefined when the request has none. */
export function shownValue(
  field: FieldOfRule,
  request: Request,
  rule: Pick<CompiledRule, 'policy' | 'mesh'>,
): string | undefined {
  const values = valuesOf(field, request, rule)
  if (values.length === 0) return undefined
  return holdsSecret(field) ? hidden : values.map(shortened).join(', ')
}
