// Cases, one after the other: a request in, an answer out.

import { countOf } from '../attributes/fields.ts'
import { readHttp2 } from '../attributes/http2.ts'
import { isRejection, type RawHttp, type Rejection } from '../attributes/request.ts'
import type { PolicySet } from '../compile.ts'
import { type Decision, policyNameOf } from '../decide.ts'
import { type Decided, evaluateHttp, evaluateTcp, type Rejected } from '../evaluate.ts'
import { type BadCase, type Case, type Destinations, readCase } from './request-line.ts'

/** The members that say nothing are absent. */
export interface Answer {
  readonly id: string | number | null
  readonly decision: 'allow' | 'deny' | 'reject'
  readonly status?: number
  readonly policy?: string
  readonly rule?: number
  readonly reason: string
}

/** The bytes of a request as the embedded proxy's server reads them. */
export type ReadBytes = (bytes: Uint8Array) => Promise<RawHttp | Rejection>

type Id = Answer['id']

function rejectedAs(id: Id, { status, reason }: Rejection): Answer {
  return { id, decision: 'reject', status, reason }
}

function reasonOf(decision: Decision): string {
  const { allow, rule } = decision
  if (!allow && decision.before === 'plaintext')
    return 'plaintext, and STRICT mutual TLS is demanded'
  if (rule === undefined) {
    return allow ? 'no ALLOW policy speaks of this destination' : 'no ALLOW rule matches'
  }
  const { policy, index } = rule
  const what = `${policy.action} policy ${policyNameOf({ allow, rule })}, rule ${index} (${policy.file}:${policy.lines[index] ?? policy.line})`
  return policy.action === 'CUSTOM'
    ? `${what}: its authorizer ${policy.provider} decides, which nobody asks offline`
    : what
}

function decidedAs(id: Id, decision: Decision, isHttp: boolean): Answer {
  const { allow, rule } = decision
  return {
    id,
    decision: allow ? 'allow' : 'deny',
    ...(!allow && isHttp ? { status: 403 } : {}),
    ...(rule === undefined ? {} : { policy: policyNameOf(decision), rule: rule.index }),
    reason: reasonOf(decision),
  }
}

/** `:authority` and so on as a request line and fields. */
function rawOfHttp2(fields: readonly string[]): RawHttp | Rejection {
  const read = readHttp2(fields)
  if (read === undefined) return { status: 400, reason: 'a malformed HTTP/2 request' }
  const { method, target, authority: host, raw } = read
  const headers: string[] = []
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const [name = '', value = ''] = [raw[i], raw[i + 1]]
    if (!name.startsWith(':')) headers.push(name, value)
  }
  return { method, target, host, headers }
}

function plainProblem({ host, headers }: RawHttp): Rejection | undefined {
  const hosts = countOf(headers, 'host') + (host === undefined ? 0 : 1)
  if (hosts > 1) return { status: 400, reason: 'more than one host' }
  return headers.length / 2 > 100 ? { status: 431, reason: 'too many header fields' } : undefined
}

export interface Evaluator {
  readonly set: PolicySet
  readonly readBytes: ReadBytes
  /** milliseconds since 1970 */
  readonly now: () => number
  /** called between the cases of a suite, where others wait */
  readonly takeTurns?: () => Promise<void>
}

/** A decision with what was decided about; `raw` is the request as its parser gave it, undefined on TCP. */
export interface Judged extends Decided {
  readonly raw: RawHttp | undefined
}

export type Evaluated = Judged | Rejected

function judgeHttp(it: Case, raw: RawHttp | Rejection, { set, now }: Evaluator): Evaluated {
  if (isRejection(raw)) return { kind: 'rejected', rejection: raw }
  const claims = it.asked.as === 'http' ? it.asked.claims : undefined
  const result = evaluateHttp(set, it.connected, { raw, claims, now: now() })
  if (result.kind === 'rejected') return result
  const { decision, request, guard } = result
  return { kind: 'decided', decision, request, guard, raw }
}

/** A promise only for raw bytes. */
export function evaluateCase(it: Case, evaluator: Evaluator): Evaluated | Promise<Evaluated> {
  const { asked, connected } = it
  switch (asked.as) {
    case 'tcp':
      return { ...evaluateTcp(evaluator.set, connected), raw: undefined }
    case 'http':
      return judgeHttp(it, plainProblem(asked.raw) ?? asked.raw, evaluator)
    case 'h2':
      return judgeHttp(it, rawOfHttp2(asked.fields), evaluator)
    case 'raw':
      return evaluator.readBytes(asked.bytes).then((raw) => judgeHttp(it, raw, evaluator))
  }
}

/** What `castellan policy eval` prints of it. */
export function answerOf(id: Id, evaluated: Evaluated): Answer {
  if (evaluated.kind === 'rejected') return rejectedAs(id, evaluated.rejection)
  return decidedAs(id, evaluated.decision, evaluated.raw !== undefined)
}

/** A line that is no valid request is one that is refused. */
export const badCase = ({ problem }: BadCase): Evaluated => ({
  kind: 'rejected',
  rejection: { status: 400, reason: problem },
})

/** The answer to one line; a promise only for raw bytes. */
export function answerLine(
  line: string,
  evaluator: Evaluator,
  known: Destinations,
): Answer | Promise<Answer> {
  const it = readCase(line, evaluator.set.mesh, known)
  const id = it.id ?? null
  if ('problem' in it) return answerOf(id, badCase(it))
  const evaluated = evaluateCase(it, evaluator)
  return evaluated instanceof Promise
    ? evaluated.then((done) => answerOf(id, done))
    : answerOf(id, evaluated)
}
