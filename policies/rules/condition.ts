// Conditions in CEL (castellan.dev/v1), read once. A condition that names what does not exist is refused
// when it is read; one that cannot be evaluated for a request makes a DENY match and an ALLOW not.
import { type CelInput, CelScalar, celEnv, isCelError, mapType, parse, plan } from '@bufbuild/cel'
import { z } from 'zod'
import { explain } from '../../spiffe/errors.ts'
import { addressText } from '../attributes/address.ts'
import type { Request } from '../attributes/request.ts'
import { identityOf, trustDomainOf } from './identity.ts'

export type Condition = (request: Request) => boolean | 'unknown'

export type CompiledCondition =
  | { readonly ok: true; readonly holds: Condition; readonly asksHttp: boolean }
  | { readonly ok: false; readonly problem: string }

const longest = 4096
// each level goes through what a request brings once more
const deepestLoop = 2

/** What a condition may name, and which of it only HTTP has. */
const attributes: ReadonlyMap<string, ReadonlySet<string>> = new Map([
  ['source', new Set(['principal', 'trustDomain', 'namespace', 'serviceAccount', 'ip'])],
  ['remote', new Set(['ip'])],
  ['destination', new Set(['principal', 'namespace', 'labels', 'ip', 'port'])],
  ['connection', new Set(['sni'])],
  ['request', new Set(['method', 'path', 'query', 'host', 'headers', 'auth'])],
])

const record = mapType(CelScalar.STRING, CelScalar.DYN)
const environment = celEnv({
  variables: {
    source: record,
    remote: record,
    destination: record,
    connection: record,
    request: record,
  },
})

// the parts of a syntax tree that are looked at
const identifier = z.object({ case: z.literal('identExpr'), value: z.object({ name: z.string() }) })
const selection = z.object({
  case: z.literal('selectExpr'),
  value: z.object({ operand: z.object({ exprKind: identifier }), field: z.string() }),
})
const loop = z.object({
  case: z.literal('comprehensionExpr'),
  value: z.object({ iterVar: z.string(), iterVar2: z.string(), accuVar: z.string() }),
})
const anyHeader = z.object({
  exprKind: z.object({
    case: z.literal('callExpr'),
    value: z.object({
      function: z.literal('_[_]'),
      args: z.tuple([
        z.object({
          exprKind: z.object({
            case: z.literal('selectExpr'),
            value: z.object({
              field: z.literal('headers'),
              operand: z.object({ exprKind: identifier }),
            }),
          }),
        }),
        z.unknown(),
      ]),
    }),
  }),
})
const comparison = z.object({
  case: z.literal('callExpr'),
  value: z.object({ function: z.enum(['_==_', '_!=_']), args: z.array(z.unknown()) }),
})

interface Walk {
  readonly bound: ReadonlySet<string>
  readonly loops: number
}

function problemOfSelection(node: unknown): string | undefined {
  const selected = selection.safeParse(node)
  if (!selected.success) return undefined
  const { operand, field } = selected.data.value
  const known = attributes.get(operand.exprKind.value.name)
  if (known === undefined || known.has(field)) return undefined
  return `${operand.exprKind.value.name} has no ${field}; it has ${[...known].join(', ')}`
}

function problemOfNode(node: unknown, { bound }: Walk): string | undefined {
  const named = identifier.safeParse(node)
  if (named.success) {
    const { name } = named.data.value
    if (attributes.has(name) || bound.has(name) || types.has(name)) return undefined
    return `nothing is named ${name}; there are ${[...attributes.keys()].join(', ')}`
  }
  const compared = comparison.safeParse(node)
  if (compared.success && compared.data.value.args.some((it) => anyHeader.safeParse(it).success)) {
    return 'a header is a list of values: write "value" in request.headers["name"]'
  }
  return problemOfSelection(node)
}

// names of types are identifiers too
const types: ReadonlySet<string> = new Set([
  ...[
    'bool',
    'bytes',
    'double',
    'dyn',
    'int',
    'list',
    'map',
    'null_type',
    'string',
    'type',
    'uint',
  ],
])

/** The first thing in a syntax tree that cannot be meant. */
function problemIn(node: unknown, walk: Walk): string | undefined {
  if (typeof node !== 'object' || node === null) return undefined
  const problem = problemOfNode(node, walk)
  if (problem !== undefined) return problem
  const isLoop = loop.safeParse(node)
  const inner: Walk = isLoop.success
    ? {
        loops: walk.loops + 1,
        bound: new Set([...walk.bound, ...namesOf(isLoop.data.value)]),
      }
    : walk
  if (inner.loops > deepestLoop) return `more than ${deepestLoop} loops inside one another`
  for (const value of Object.values(node)) {
    const found = problemIn(value, inner)
    if (found !== undefined) return found
  }
  return undefined
}

const namesOf = (it: { iterVar: string; iterVar2: string; accuVar: string }) => [
  it.iterVar,
  it.iterVar2,
  it.accuVar,
]

type Value = CelInput

/** Only what is there: to ask for what is absent is an error, and so decides nothing. */
function present(values: Readonly<Record<string, Value | undefined>>): ReadonlyMap<string, Value> {
  const map = new Map<string, Value>()
  for (const [name, value] of Object.entries(values)) {
    if (value !== undefined) map.set(name, value)
  }
  return map
}

const anything: z.ZodType<Value> = z.lazy(() =>
  z.union([
    z.string(),
    z.boolean(),
    z.null(),
    z.number().transform((it) => (Number.isSafeInteger(it) ? BigInt(it) : it)),
    z.array(anything),
    z.record(z.string(), anything).transform((it) => new Map(Object.entries(it))),
  ]),
)

function requestValues({ http, claims }: Request): ReadonlyMap<string, Value> {
  if (http === undefined) return new Map()
  const headers = new Map<string, Value>(
    http.headers.names().map((name) => [name, [...http.headers.values(name)]]),
  )
  const { iss, sub } = claims ?? {}
  const principal = typeof iss === 'string' && typeof sub === 'string' ? `${iss}/${sub}` : undefined
  const known = claims === undefined ? undefined : anything.safeParse(claims).data
  return present({
    method: http.method,
    path: http.path,
    query: http.query,
    host: http.host?.name,
    headers,
    auth: present({ principal, claims: known }),
  })
}

function valuesOf(request: Request) {
  const { source, sourceIp, remoteIp, destination, sni } = request
  const known = source === undefined ? undefined : identityOf(source)
  const ip = (it: Request['sourceIp']) => (it === undefined ? undefined : addressText(it))
  return {
    source: present({
      principal: source,
      trustDomain: source === undefined ? undefined : trustDomainOf(source),
      namespace: known?.namespace,
      serviceAccount: known?.serviceAccount,
      ip: ip(sourceIp),
    }),
    remote: present({ ip: ip(remoteIp) }),
    destination: present({
      principal: destination.id,
      namespace: destination.namespace,
      labels: new Map(Object.entries(destination.labels)),
      ip: ip(destination.ip),
      port: destination.port === undefined ? undefined : BigInt(destination.port),
    }),
    connection: present({ sni }),
    request: requestValues(request),
  }
}

/** Reads a condition. The problem says what to write instead. */
export function compileCondition(text: string): CompiledCondition {
  if (text.length > longest) return { ok: false, problem: `longer than ${longest} characters` }
  try {
    const tree = parse(text)
    const problem = problemIn(tree.expr, { bound: new Set(), loops: 0 })
    if (problem !== undefined) return { ok: false, problem }
    const evaluate = plan(environment, tree)
    return {
      ok: true,
      asksHttp: /\brequest\b/.test(text),
      holds(request) {
        try {
          const result = evaluate(valuesOf(request))
          return isCelError(result) || typeof result !== 'boolean' ? 'unknown' : result
        } catch {
          return 'unknown'
        }
      },
    }
  } catch (cause) {
    return { ok: false, problem: `no CEL expression: ${explain(cause)}` }
  }
}
