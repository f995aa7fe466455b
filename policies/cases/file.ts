// Cases kept beside policies: `*.cases.yaml`, written by people, and `*.jsonl` in the form of the corpus.
import { basename, dirname, isAbsolute, join } from 'node:path'
import { z } from 'zod'
import { type Path, problemsOf, readDocuments, refuseAt } from '../../documents/yaml.ts'
import { isSpiffeId } from '../../spiffe/id.ts'
import { namespaceOf } from '../attributes/request.ts'
import { meshDocument, type Profile } from '../language/mesh.ts'

export type Expected = 'allow' | 'deny' | 'reject'

/** What an answer has to be; what is absent may be anything. */
export interface Expectation {
  readonly decision: readonly Expected[]
  readonly status?: number | undefined
  /** namespace/name of what determined it */
  readonly policy?: string | undefined
  /** index from 0 */
  readonly rule?: number | undefined
}

export interface FileCase {
  readonly name: string
  /** from 1 */
  readonly line: number
  /** of its request in the document, or on its line */
  readonly path: Path
  /** a request of the corpus, as JSON */
  readonly request: string
  /** undefined when the case says nothing of the profile */
  readonly expect: (profile: Profile) => Expectation | undefined
}

export interface CaseFile {
  readonly file: string
  /** files and folders */
  readonly policies: readonly string[]
  readonly profile: Profile | undefined
  /** a file; or the mesh itself */
  readonly mesh: string | z.infer<typeof meshDocument> | undefined
  readonly cases: readonly FileCase[]
}

const decision = z.enum(['allow', 'deny', 'reject'])
const outcome = z.strictObject({
  decision: z.union([decision.transform((it) => [it]), z.array(decision).min(1)], {
    error: 'is allow, deny or reject, or a list of them',
  }),
  status: z.int().optional(),
  policy: z.string().optional(),
  rule: z.int().min(0).optional(),
})
const expectation = z.union([decision.transform((it) => ({ decision: [it] })), outcome], {
  error: 'write allow, deny or reject, or { decision, status, policy, rule }',
})

/** `example.org/ns/shop/sa/web` is a principal too. */
const principal = z.string().transform((text) => (text.includes('://') ? text : `spiffe://${text}`))

/** What a single text stands for, read before the record that it is short for. */
const orShort = <T extends z.ZodType>(full: T, meant: (text: string) => unknown) =>
  z.preprocess((value) => (typeof value === 'string' ? meant(value) : value), full)

const byPrincipal = (text: string) => ({ principal: text })

const source = orShort(
  z.strictObject(
    { principal: principal.optional(), ip: z.string().optional(), port: z.int().optional() },
    { error: 'write a SPIFFE ID, or { principal, ip, port }' },
  ),
  byPrincipal,
)

const named = (id: string | undefined) =>
  id !== undefined && isSpiffeId(id) ? { namespace: namespaceOf(id) } : {}

const destination = orShort(
  z
    .strictObject(
      {
        principal: principal.optional(),
        namespace: z.string().optional(),
        labels: z.record(z.string(), z.string()).optional(),
        ip: z.string().optional(),
        port: z.int().optional(),
      },
      { error: 'write a SPIFFE ID, or { principal, namespace, labels, ip, port }' },
    )
    // where nothing is said, the identity says which namespace
    .transform((it) => ({ ...named(it.principal), ...it })),
  byPrincipal,
)

const headers = z.union(
  [
    z.array(z.tuple([z.string(), z.string()])),
    z
      .record(z.string(), z.union([z.string(), z.array(z.string())]))
      .transform((it) =>
        Object.entries(it).flatMap(([name, values]) =>
          [values].flat().map((value): [string, string] => [name, value]),
        ),
      ),
  ],
  { error: 'write NAME: "VALUE" or NAME: ["VALUE", …] for each; a number needs quotes' },
)

const http = orShort(
  z.strictObject(
    {
      method: z.string().default('GET'),
      path: z.string().default('/'),
      host: z.string().optional(),
      headers: headers.optional(),
    },
    { error: 'write METHOD PATH, such as GET /payments/1, or { method, path, host, headers }' },
  ),
  (line) => {
    const [, method, path] = /^(\S+) (\S+)$/.exec(line) ?? []
    return method === undefined ? line : { method, path }
  },
)

const request = z.strictObject({
  source: source.optional(),
  destination: destination.optional(),
  remoteIp: z.string().optional(),
  tls: z.strictObject({ sni: z.string().optional() }).optional(),
  http: http.optional(),
  raw: z.string().optional(),
  h2: z.array(z.tuple([z.string(), z.string()])).optional(),
  jwt: z.strictObject({ claims: z.record(z.string(), z.unknown()) }).optional(),
})

const caseFile = z.strictObject({
  policies: z.array(z.string()).min(1).optional(),
  mesh: z.union([z.string(), meshDocument]).optional(),
  profile: z.enum(['strict', 'istio']).optional(),
  cases: z
    .array(z.strictObject({ name: z.string().min(1), request, expect: expectation }))
    .min(1, 'a file of cases has cases'),
})

function readYaml(file: string, text: string): CaseFile {
  const [read, second] = readDocuments(text, file, caseFile, 'ERR_CONFIG')
  if (read === undefined || second !== undefined) {
    const problem = read === undefined ? 'the file is empty' : 'more than one document'
    return refuseAt(file, 'ERR_CONFIG', [{ line: 1, path: [], problem }])
  }
  const { policies = [], mesh, profile, cases } = read.value
  const beside = (name: string) => (isAbsolute(name) ? name : join(dirname(file), name))
  return {
    file,
    policies: policies.map(beside),
    profile,
    mesh: typeof mesh === 'string' ? beside(mesh) : mesh,
    cases: cases.map(({ name, request: asked, expect }, i) => ({
      name,
      line: read.lineOf(['cases', i]),
      path: ['cases', i, 'request'],
      request: JSON.stringify(asked),
      expect: () => expect,
    })),
  }
}

const corpusLine = z.strictObject({
  row: z.unknown().optional(),
  id: z.union([z.string(), z.number()]).optional(),
  request: z.record(z.string(), z.unknown()),
  expect: z.strictObject({ strict: outcome.optional(), istio: outcome.optional() }),
  why: z.string().optional(),
})

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

const notJson = [{ path: [], problem: 'no JSON' }]

function readCorpusLine(file: string, line: number, text: string): FileCase {
  const result = corpusLine.safeParse(parsed(text))
  if (!result.success) {
    const problems = parsed(text) === undefined ? notJson : problemsOf(result.error.issues)
    return refuseAt(
      file,
      'ERR_CONFIG',
      problems.map((it) => ({ ...it, line })),
    )
  }
  const { id, request: asked, expect, why } = result.data
  const name = [id, why].filter((it) => it !== undefined).join(' ')
  return {
    ...{ name, line, path: ['request'], request: JSON.stringify(asked) },
    expect: (profile) => expect[profile],
  }
}

/** `NAME.cases.jsonl` is about `NAME.yaml`, `cases.jsonl` about `policies.yaml` and `mesh.yaml` beside it. */
function readCorpus(file: string, text: string, exists: (file: string) => boolean): CaseFile {
  const folder = dirname(file)
  const name = basename(file).replace(/\.?cases\.jsonl$/, '')
  const [policies, mesh] =
    name === '' ? ['policies.yaml', 'mesh.yaml'] : [`${name}.yaml`, `${name}.mesh.yaml`]
  const found = (it: string) => (exists(join(folder, it)) ? join(folder, it) : undefined)
  const cases = text
    .split('\n')
    .flatMap((line, i) => (line.trim() === '' ? [] : [readCorpusLine(file, i + 1, line)]))
  return {
    file,
    policies: [found(policies)].filter((it) => it !== undefined),
    profile: undefined,
    mesh: found(mesh),
    cases,
  }
}

/** Whether a name in a folder is one of cases. */
export function isCaseFile(name: string): boolean {
  return /(?:\.cases\.ya?ml|(?:^|\.)cases\.jsonl)$/.test(name)
}

/** Throws ERR_CONFIG with file, line and field. */
export function readCaseFile(
  file: string,
  text: string,
  exists: (file: string) => boolean,
): CaseFile {
  return file.endsWith('.jsonl') ? readCorpus(file, text, exists) : readYaml(file, text)
}
