// Lowered policies against the engine: random policies, random requests, both readings of what was lowered.
// Throws where a lowered DENY is narrower than written, or an ALLOW wider.

import { deepStrictEqual, equal, ok } from 'node:assert/strict'
import fc from 'fast-check'
import { rbacFilters } from '../../agent/proxies/envoy/rbac.ts'
import { type RawHttp, readAddress } from '../../policies/attributes/request.ts'
import { compile, type PolicySet } from '../../policies/compile.ts'
import { type Connected, evaluateHttp, evaluateTcp } from '../../policies/evaluate.ts'
import { type Mesh, meshDocument } from '../../policies/language/mesh.ts'
import { type PolicyDocuments, readPolicies } from '../../policies/language/read.ts'
import { type Lowered, lower } from '../../policies/lower/lower.ts'
import { isSpiffeId } from '../../spiffe/id.ts'
import { type EnvoyRequest, headerText, rbacVerdict } from './envoy-rbac.ts'
import { asEnvoySees, type Sent } from './envoy-request.ts'
import { treeVerdict } from './lowered-verdict.ts'
import type { OracleRequest } from './oracle/decide.ts'
import { documentsAbout, mesh, textOf } from './random-policies.ts'
import { requestAbout } from './random-requests.ts'

/** What was not refused: all that can be asked of the lowered policies. */
function withoutRefused(set: PolicySet, { refused }: Lowered): PolicySet {
  const { policies } = set.documents
  const isRefused = (name: string, rule?: number) =>
    refused.some((it) => it.policy === name && it.rule === rule)
  const left: PolicyDocuments = {
    ...set.documents,
    authentications: [],
    policies: policies
      .filter(({ namespace, name }) => !isRefused(`${namespace}/${name}`))
      .map((policy) => ({
        ...policy,
        rules: policy.rules.filter((_, i) => !isRefused(`${policy.namespace}/${policy.name}`, i)),
      })),
  }
  return compile(left, { mesh: set.mesh })
}

function connectedOf({ source, destination, tls }: OracleRequest, its: Mesh): Connected {
  const address = (text: string | undefined) =>
    text === undefined ? undefined : readAddress(text, its)
  return {
    source: source?.principal,
    sourceIp: address(source?.ip),
    destination: {
      id: undefined,
      namespace: destination?.namespace ?? 'default',
      labels: destination?.labels ?? {},
      ip: address(destination?.ip),
      port: destination?.port,
    },
    // no name is none, as TLS gives it to us
    sni: tls?.sni || undefined,
  }
}

function sentOf(asked: OracleRequest): Sent {
  const { http, source, destination, tls } = asked
  const headers = (http?.headers ?? []).map(([name = '', value = '']) => [name, value] as const)
  const hosts = headers.filter(([name]) => name.toLowerCase() === 'host').map(([, value]) => value)
  return {
    uris: source?.principal === undefined ? [] : [source.principal],
    peerIp: source?.ip,
    destinationIp: destination?.ip,
    destinationPort: destination?.port,
    serverName: tls?.sni || undefined,
    method: http?.method ?? '',
    target: http?.path ?? '',
    hosts: http?.host === undefined ? hosts : [http.host, ...hosts],
    headers: headers.filter(([name]) => name.toLowerCase() !== 'host'),
  }
}

/** The request as it is forwarded, but for what Envoy adds. */
const forwardedOf = (seen: EnvoyRequest, sent: Sent): RawHttp => ({
  method: sent.method,
  target: headerText(seen, ':path') ?? '',
  host: headerText(seen, ':authority'),
  headers: sent.headers.flat(),
})

const connectionOf = ({ uris }: Sent) => (uris.length === 0 ? 'plaintext' : 'mutual-tls')

interface Answers {
  readonly guard: boolean
  readonly deny: boolean
  readonly allow: boolean
}

function answersOf(lowered: Lowered, seen: EnvoyRequest): Answers {
  const guard = treeVerdict(lowered.guard, seen)
  const deny = treeVerdict(lowered.deny, seen)
  const allow = treeVerdict(lowered.allow, seen)
  const filters = rbacFilters({ ...lowered, needsAuthz: false })
  const verdicts = filters.map(({ typedConfig }) => rbacVerdict(typedConfig, seen).isAllowed)
  // Envoy's messages say what the description says
  equal(
    verdicts.every((it) => it),
    guard.isAllowed && deny.isAllowed && allow.isAllowed,
  )
  return { guard: guard.isAllowed, deny: deny.isAllowed, allow: allow.isAllowed }
}

// what asks about tokens is refused
export const scenario = fc
  .constantFrom('addresses' as const, 'messages' as const, 'identities' as const)
  .chain((subject) =>
    fc.record({
      list: documentsAbout[subject],
      file: mesh,
      isPlain: fc.boolean(),
      knowsPort: fc.boolean(),
      asked: fc.array(requestAbout[subject], { minLength: 12, maxLength: 12 }),
    }),
  )

export type Scenario = typeof scenario extends fc.Arbitrary<infer T> ? T : never

export function setOf({ list, file, isPlain }: Pick<Scenario, 'list' | 'file' | 'isPlain'>) {
  const its: Mesh = {
    profile: 'strict',
    ...meshDocument.parse({ ...file, ...(isPlain ? { backend: 'rfc3986' } : {}) }),
  }
  return compile(readPolicies([{ name: 'random.yaml', text: textOf(list) }]), { mesh: its })
}

export const isCaller = ({ source }: OracleRequest) =>
  source?.principal === undefined || isSpiffeId(source.principal)

interface Compared {
  readonly set: PolicySet
  /** whether port and address of the destination are known when policies are lowered */
  readonly knowsPort: boolean
}

export const newTally = () => ({ passed: 0, allowed: 0, denied: 0, exact: 0, refused: 0 })
export type Tally = ReturnType<typeof newTally>

export function compareHttp(
  { set, knowsPort }: Compared,
  asked: OracleRequest,
  tally: Tally,
): void {
  const connected = connectedOf(asked, set.mesh)
  const { destination } = connected
  const where = knowsPort ? destination : { ...destination, port: undefined, ip: undefined }
  const sent = sentOf(asked)
  const lowered = lower(set, where, { connection: connectionOf(sent) })
  tally.refused += lowered.refused.length
  const mergesSlashes = !lowered.demands.includes('plain-slashes')
  const seen = asEnvoySees(sent, { mergesSlashes, trustedHops: set.mesh.trustedHops })
  if (seen === undefined) return
  const answers = answersOf(lowered, seen)
  if (!answers.guard) return
  tally.passed++
  const left = withoutRefused(set, lowered)
  const result = evaluateHttp(left, connected, { raw: forwardedOf(seen, sent), now: 0 })
  // what the strict engine rejects does not pass the guard
  if (result.kind === 'rejected') throw new Error(`rejected: ${result.rejection.reason}`)
  const { guard, request: read, decision } = result
  const denies = guard.deny.find(read) !== undefined
  const allows = guard.allow.find(read) !== undefined
  ok(!denies || !answers.deny, 'a DENY is narrower than written')
  ok(!answers.allow || allows, 'an ALLOW is wider than written')
  const isAllowed = answers.deny && answers.allow
  tally[isAllowed ? 'allowed' : 'denied']++
  ok(!isAllowed || decision.allow, 'allowed, and the engine denies')
  if (lowered.differences.length > 0) return
  tally.exact++
  deepStrictEqual({ deny: !answers.deny, allow: answers.allow }, { deny: denies, allow: allows })
}

export function compareTcp({ set, knowsPort }: Compared, asked: OracleRequest, tally: Tally): void {
  const connected = connectedOf(asked, set.mesh)
  const { destination } = connected
  const where = knowsPort ? destination : { ...destination, port: undefined, ip: undefined }
  const sent = sentOf(asked)
  const lowered = lower(set, where, { protocol: 'tcp', connection: connectionOf(sent) })
  const seen: EnvoyRequest = {
    ...{ uris: sent.uris, directSourceIp: sent.peerIp, sourceIp: sent.peerIp },
    ...{ destinationIp: sent.destinationIp, destinationPort: sent.destinationPort },
    ...{ serverName: sent.serverName, headers: [] },
  }
  const answers = answersOf(lowered, seen)
  if (!answers.guard) return
  const { decision } = evaluateTcp(withoutRefused(set, lowered), connected)
  tally.passed++
  equal(answers.deny && answers.allow, decision.allow)
}
