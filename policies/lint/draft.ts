// Requests that are thought up: the attributes of one side by side, easily changed, asked of the engine as they
// are, and written as a line of the corpus so that anybody can ask again.
import { isSpiffeId } from '../../spiffe/id.ts'
import { fieldsProblem } from '../attributes/fields.ts'
import {
  type Claims,
  isRejection,
  type Rejection,
  type Request,
  readAddress,
  readHttp,
  reject,
  remoteAddress,
} from '../attributes/request.ts'
import type { Guard, PolicySet } from '../compile.ts'
import { policyNameOf } from '../decide.ts'
import { type Connected, evaluateHttp, evaluateTcp } from '../evaluate.ts'
import { shortened } from '../explain/values.ts'
import type { Mesh } from '../language/mesh.ts'
import type { Labels } from '../language/policy.ts'
import type { CompiledRule } from '../rules/rule.ts'

/** Whom a request is for: what puts policies in scope. */
export interface Whom {
  readonly namespace: string
  readonly labels: Labels
  /** the whole SPIFFE ID */
  readonly principal: string | undefined
}

export interface Draft {
  readonly to: Whom
  readonly toIp: string | undefined
  readonly port: number
  /** the whole SPIFFE ID; undefined is plaintext */
  readonly principal: string | undefined
  readonly ip: string
  /** derived already, by whatever stands in front */
  readonly remoteIp: string | undefined
  readonly sni: string | undefined
  readonly isTcp: boolean
  readonly method: string
  readonly path: string
  readonly host: string
  readonly headers: readonly (readonly [name: string, value: string])[]
  /** of a token that somebody has verified; undefined leaves the request's own to the engine */
  readonly claims: Claims | undefined
}

export type Change = (draft: Draft) => Draft

export type Outcome =
  | {
      readonly decision: 'allow' | 'deny'
      readonly rule: CompiledRule | undefined
      /** denied before any rule: no identity where PeerAuthentication wants one */
      readonly isPlaintext: boolean
      readonly request: Request
      readonly guard: Guard
    }
  | { readonly decision: 'reject'; readonly rejection: Rejection }

/** A request as `corpus/README.md` of the policy corpus writes it; what says nothing is left out. */
export function requestLineOf(draft: Draft): object {
  const { to, toIp, port, principal, ip, remoteIp, sni, claims } = draft
  const { namespace, labels } = to
  const hasLabels = Object.keys(labels).length > 0
  const { method, host, path, headers } = draft
  return {
    source: { ...(principal === undefined ? {} : { principal }), ip },
    destination: {
      ...(to.principal === undefined ? {} : { principal: to.principal }),
      namespace,
      ...(hasLabels ? { labels } : {}),
      ...(toIp === undefined ? {} : { ip: toIp }),
      port,
    },
    ...(remoteIp === undefined ? {} : { remoteIp }),
    ...(sni === undefined ? {} : { tls: { sni } }),
    ...(draft.isTcp
      ? {}
      : { http: { method, host, path, ...(headers.length === 0 ? {} : { headers }) } }),
    ...(draft.isTcp || claims === undefined ? {} : { jwt: { claims } }),
  }
}

function connectedOf(
  { to, toIp, port, principal, ip, remoteIp, sni }: Draft,
  mesh: Mesh,
): Connected {
  const address = (text: string | undefined) =>
    text === undefined ? undefined : readAddress(text, mesh)
  const id = to.principal !== undefined && isSpiffeId(to.principal) ? to.principal : undefined
  return {
    source: principal,
    sourceIp: address(ip),
    remoteIp: address(remoteIp),
    destination: { id, namespace: to.namespace, labels: to.labels, ip: address(toIp), port },
    sni,
  }
}

const rawOf = ({ method, path, host, headers }: Draft) => ({
  method,
  target: path,
  host,
  headers: headers.flat(),
})

function problemOf({ principal, headers }: Draft, { profile }: Mesh): Rejection | undefined {
  // Istio compares bytes, whatever they are
  if (principal !== undefined && profile === 'strict' && !isSpiffeId(principal)) {
    return reject(400, 'the caller has no SPIFFE ID')
  }
  const problem = fieldsProblem(headers.flat())
  return problem === undefined ? undefined : reject(400, problem)
}

/** The request as rules see it, whatever a RequestAuthentication says; undefined when it is refused before. */
export function requestOf(draft: Draft, mesh: Mesh): Request | undefined {
  if (problemOf(draft, mesh) !== undefined) return undefined
  const { claims, isTcp } = draft
  const connected = connectedOf(draft, mesh)
  const { sourceIp, remoteIp } = connected
  if (isTcp) {
    return { ...connected, remoteIp: remoteIp ?? sourceIp, http: undefined, claims: undefined }
  }
  const http = readHttp(rawOf(draft), mesh)
  if (isRejection(http)) return undefined
  return {
    ...connected,
    remoteIp: remoteIp ?? remoteAddress(sourceIp, http.headers, mesh),
    http,
    claims,
  }
}

/** `now` in milliseconds since 1970. */
export function ask(set: PolicySet, draft: Draft, now: number): Outcome {
  const problem = problemOf(draft, set.mesh)
  if (problem !== undefined) return { decision: 'reject', rejection: problem }
  const connected = connectedOf(draft, set.mesh)
  const result = draft.isTcp
    ? evaluateTcp(set, connected)
    : evaluateHttp(set, connected, { raw: rawOf(draft), claims: draft.claims, now })
  if (result.kind === 'rejected') return { decision: 'reject', rejection: result.rejection }
  const { decision, request, guard } = result
  const { allow, rule } = decision
  const isPlaintext = !allow && decision.before === 'plaintext'
  return { decision: allow ? 'allow' : 'deny', rule, isPlaintext, request, guard }
}

const verbs = { allow: 'allowed', deny: 'denied', reject: 'refused' } as const

function byOf(outcome: Outcome): string {
  if (outcome.decision === 'reject')
    return ` (${outcome.rejection.status}, ${outcome.rejection.reason})`
  const { rule, decision } = outcome
  if (outcome.isPlaintext) return ' (STRICT mutual TLS is demanded)'
  if (rule === undefined)
    return decision === 'allow' ? ' (no ALLOW policy)' : ' (no ALLOW rule matches)'
  const name = policyNameOf({ allow: decision === 'allow', rule })
  return ` by ${rule.policy.action} ${name}, rule ${rule.index}`
}

function whoOf({ principal, ip, remoteIp, claims }: Draft): string {
  const whose =
    claims === undefined ? '' : ` with a token of ${claims.iss ?? '-'}/${claims.sub ?? '-'}`
  const from = remoteIp === undefined ? ip : `${ip} for ${remoteIp}`
  return `${principal ?? 'plaintext'} (${from})${whose}`
}

const shownHeader = ([name, value]: readonly [string, string]) =>
  // a token that was thought up is long, and says nothing
  name === 'authorization' ? 'authorization: Bearer …' : `${name}: ${value}`

function whatOf({ isTcp, method, path, host, headers, sni }: Draft): string {
  const server = sni === undefined ? '' : ` sni ${sni}`
  if (isTcp) return `TCP${server}`
  const lines = headers.map(shownHeader).join(', ')
  return `${method} ${shortened(path)} host ${host}${server}${lines === '' ? '' : ` [${lines}]`}`
}

/** One line for people: who asks whom for what, and the answer. */
export function describeDraft(draft: Draft, outcome: Outcome): string {
  const { to, port } = draft
  const labels = Object.entries(to.labels).map(([name, value]) => `${name}=${value}`)
  const whom = to.principal ?? `namespace ${to.namespace}`
  const which = labels.length === 0 ? '' : ` {${labels.join(', ')}}`
  const answer = `${verbs[outcome.decision]}${byOf(outcome)}`
  return `${whoOf(draft)} → ${whom}${which}:${port} ${whatOf(draft)}: ${answer}`
}
