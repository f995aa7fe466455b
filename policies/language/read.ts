// Policy files to policies: YAML in, documents with places out.
import { z } from 'zod'
import { type Checked, readDocuments, readEach, refuseAt } from '../../documents/yaml.ts'
import { patternOf } from '../rules/pattern.ts'
import { type AuthorizationDocument, authorizationPolicy, isShadow } from './authorization.ts'
import { excuse, ownVersion } from './metadata.ts'
import { type PeerAuthenticationDocument, peerAuthentication } from './peer-authentication.ts'
import type { Labels, Policy } from './policy.ts'
import { type RateLimitDocument, rateLimit } from './rate-limit.ts'
import {
  type RequestAuthenticationDocument,
  requestAuthentication,
} from './request-authentication.ts'

export interface PolicyText {
  /** named in errors and explanations */
  readonly name: string
  readonly text: string
}

/** Where a document stands and whom it speaks of. */
export interface Placed {
  readonly namespace: string
  readonly name: string
  readonly selector: Labels | undefined
  /** it speaks of a gateway or a service, and so of no workload */
  readonly isElsewhere: boolean
  /** rules of the linter that say nothing of it */
  readonly excused: readonly string[]
  readonly file: string
  readonly line: number
}

export interface RequestAuthentication extends Placed {
  readonly rules: RequestAuthenticationDocument['spec']['jwtRules']
}

export interface PeerAuthentication extends Placed {
  readonly spec: PeerAuthenticationDocument['spec']
}

export interface RateLimit extends Placed {
  readonly spec: RateLimitDocument['spec']
  /** patterns of the SPIFFE IDs it speaks of, without scheme, instead of a namespace */
  readonly targets: Policy['targets']
  /** lines of the limits, from 1 */
  readonly lines: readonly number[]
}

/** All documents of a set, by their kind. */
export interface PolicyDocuments {
  readonly policies: readonly Policy[]
  readonly authentications: readonly RequestAuthentication[]
  readonly peers: readonly PeerAuthentication[]
  readonly limits: readonly RateLimit[]
}

export const noDocuments: PolicyDocuments = {
  policies: [],
  authentications: [],
  peers: [],
  limits: [],
}

const kinds = ['AuthorizationPolicy', 'RequestAuthentication', 'PeerAuthentication', 'RateLimit']

export const policyDocument = z.discriminatedUnion(
  'kind',
  [authorizationPolicy, requestAuthentication, peerAuthentication, rateLimit],
  { error: () => `one of ${kinds.join(', ')}` },
)

export type PolicyDocument = z.infer<typeof policyDocument>
type Read = Checked<PolicyDocument>

function labelsOf(selector: { readonly matchLabels: Labels } | undefined): Labels | undefined {
  const labels = selector?.matchLabels
  return labels === undefined || Object.keys(labels).length === 0 ? undefined : labels
}

interface At {
  readonly file: string
  readonly lineOf: Read['lineOf']
}

const excusedIn = (text: string) =>
  text
    .split(',')
    .map((it) => it.trim())
    .filter((it) => it !== '')

function placeOf(value: PolicyDocument, { file, lineOf }: At): Placed {
  const { metadata, spec } = value
  const refs = 'targetRef' in spec || 'targetRefs' in spec
  return {
    namespace: metadata.namespace,
    name: metadata.name,
    selector: labelsOf(spec.selector),
    isElsewhere: refs,
    excused: excusedIn(metadata.annotations?.[excuse] ?? ''),
    file,
    line: lineOf(['kind']),
  }
}

const withoutScheme = (text: string) =>
  text.startsWith('spiffe://') ? text.slice('spiffe://'.length) : text

const targetsOf = ({ targets }: { readonly targets?: readonly string[] | undefined }) =>
  targets?.map((text) => patternOf(withoutScheme(text)))

function policyOf(value: AuthorizationDocument, at: At): Policy {
  const { spec } = value
  const rules = spec.rules ?? []
  return {
    ...placeOf(value, at),
    action: spec.action,
    rules,
    targets: targetsOf(spec),
    isShadow: isShadow(value),
    expires: spec.expires === undefined ? undefined : Date.parse(spec.expires),
    provider: spec.provider?.name,
    isIstio: value.apiVersion !== ownVersion,
    lines: rules.map((_, i) => at.lineOf(['spec', 'rules', i])),
  }
}

/** One kind's documents, in the order they were read. */
function collect(documents: readonly (Read & { readonly file: string })[]): PolicyDocuments {
  const policies: Policy[] = []
  const authentications: RequestAuthentication[] = []
  const peers: PeerAuthentication[] = []
  const limits: RateLimit[] = []
  for (const { value, file, lineOf } of documents) {
    const at = { file, lineOf }
    switch (value.kind) {
      case 'AuthorizationPolicy':
        policies.push(policyOf(value, at))
        break
      case 'RequestAuthentication':
        authentications.push({ ...placeOf(value, at), rules: value.spec.jwtRules })
        break
      case 'PeerAuthentication':
        peers.push({ ...placeOf(value, at), spec: value.spec })
        break
      case 'RateLimit': {
        const lines = value.spec.limits.map((_, i) => lineOf(['spec', 'limits', i]))
        const { spec } = value
        limits.push({ ...placeOf(value, at), spec, targets: targetsOf(spec), lines })
      }
    }
  }
  return { policies, authentications, peers, limits }
}

type ReadFile = (file: PolicyText) => readonly (Read & { readonly file: string })[]

function readFile({ name: file, text }: PolicyText) {
  return readDocuments(text, file, policyDocument, 'ERR_POLICY').map((it) => ({ ...it, file }))
}

/** Two documents of one kind and name are a problem of the second. */
function refuseTwins(documents: readonly (Read & { readonly file: string })[]): void {
  const known = new Map<string, string>()
  readEach(documents, 'ERR_POLICY', ({ value: { metadata, kind }, file, lineOf }) => {
    const key = `${kind} ${metadata.namespace}/${metadata.name}`
    const first = known.get(key)
    known.set(key, first ?? file)
    if (first === undefined) return
    const path = ['metadata', 'name']
    const problem = `a second ${key} (the first is in ${first})`
    refuseAt(file, 'ERR_POLICY', [{ line: lineOf(path), path, problem }])
  })
}

function readSet(files: readonly PolicyText[], read: ReadFile) {
  const documents = readEach(files, 'ERR_POLICY', read).flat()
  refuseTwins(documents)
  return documents
}

/**
 * Reads all files as one set. Throws ERR_POLICY with file, line and field of every problem; two documents of
 * one kind and name are a problem of the second.
 */
export function readPolicies(files: readonly PolicyText[]): PolicyDocuments {
  return collect(readSet(files, readFile))
}

/**
 * Reads one set after the other. What stands in a file that did not change are the same objects again, which
 * bring along what was compiled of them. Throws as `readPolicies` does, and keeps what it had.
 */
export function createPolicyReader(): (files: readonly PolicyText[]) => PolicyDocuments {
  interface Kept {
    readonly text: string
    readonly documents: ReturnType<ReadFile>
    readonly collected: PolicyDocuments
  }
  let kept = new Map<string, Kept>()

  return (files) => {
    const next = new Map<string, Kept>()
    const read: ReadFile = (file) => {
      const known = kept.get(file.name)
      const documents = known?.text === file.text ? known.documents : readFile(file)
      const collected = known?.text === file.text ? known.collected : collect(documents)
      next.set(file.name, { text: file.text, documents, collected })
      return documents
    }
    readSet(files, read)
    kept = next
    const all = files.flatMap(({ name }) => next.get(name)?.collected ?? [])
    return {
      policies: all.flatMap(({ policies }) => policies),
      authentications: all.flatMap(({ authentications }) => authentications),
      peers: all.flatMap(({ peers }) => peers),
      limits: all.flatMap(({ limits }) => limits),
    }
  }
}

/** The addresses of all JWKS that a set names. */
export function jwksUrisOf({ authentications }: PolicyDocuments): readonly string[] {
  const uris = authentications.flatMap(({ rules }) =>
    rules.flatMap(({ jwksUri, jwks_uri: older }) => jwksUri ?? older ?? []),
  )
  return [...new Set(uris)]
}
