// Requests at the door, with the external authorizers that CUSTOM policies name. Without one there is nothing to
// wait for; after each consent it is decided anew, by the policies of then and the request as it is by then.
import type { RawHttp } from '../policies/attributes/request.ts'
import { consentTo } from '../policies/consent.ts'
import type { DecidedHttp } from '../policies/evaluate.ts'
import type { CompiledRule } from '../policies/rules/rule.ts'
import type { Authorizer, Check } from './authorizer.ts'
import type { Core } from './core.ts'
import { passingRequest } from './headers.ts'
import { type Arrival, type Considered, conclude, consider, type Verdict } from './judge.ts'

/** Whom to ask, and about what. */
interface Question {
  readonly considered: Considered
  readonly rule: CompiledRule
  readonly authorizer: Authorizer
  readonly check: Check
}

/** A query without the parameters that held a token. */
function withoutParameters(query: string, names: readonly string[]): string {
  if (names.length === 0 || query === '') return query
  const kept = query
    .slice(1)
    .split('&')
    .filter((pair) => !names.includes([...new URLSearchParams(pair).keys()][0] ?? ''))
  return kept.length === 0 ? '' : `?${kept.join('&')}`
}

/** Path and query as they are forwarded. */
export function forwardedPath({ http, authenticated }: DecidedHttp): string {
  return http.path + withoutParameters(http.query, authenticated.dropsParameters)
}

function checkOf(
  core: Core,
  { asked: { raw }, connected }: Considered,
  decided: DecidedHttp,
): Check {
  const { own, adds } = decided.authenticated
  return {
    method: raw.method,
    path: forwardedPath(decided),
    host: raw.host ?? '',
    headers: [
      ...passingRequest(raw.headers, core, own),
      ...adds,
      ...(connected.source === undefined ? [] : [core.identityHeader, connected.source]),
    ],
  }
}

/** Undefined where nobody has to be asked, or where nobody knows whom. */
function questionOf(core: Core, considered: Considered | undefined): Question | undefined {
  if (considered?.result.kind !== 'decided') return undefined
  const { result } = considered
  const { allow, rule } = result.decision
  if (allow || rule?.policy.action !== 'CUSTOM') return undefined
  const authorizer = core.authorizers.get(rule.policy.provider ?? '')
  if (authorizer === undefined) return undefined
  return { considered, rule, authorizer, check: checkOf(core, considered, result) }
}

async function consult(
  core: Core,
  arrival: Arrival,
  { first, gone }: { readonly first: Question; readonly gone: AbortSignal },
): Promise<Verdict> {
  const consents = new Set<string>()
  const downstream: string[] = []
  let question = first
  for (;;) {
    const { considered, authorizer, check } = question
    const answer = await authorizer.ask(check, gone)
    if (answer.kind === 'refusal') {
      conclude(core, considered)
      return { kind: 'denied', refusal: answer.refusal }
    }
    consents.add(consentTo(question.rule))
    downstream.push(...answer.downstream)
    const { raw } = considered.asked
    const changed = { ...raw, headers: answer.change(raw.headers) }
    const again = consider(core, arrival, { raw: changed, consents, downstream })
    const next = questionOf(core, again)
    if (next === undefined) return conclude(core, again)
    question = next
  }
}

/** A promise only where an authorizer is asked. Throws ERR_UNTRUSTED, and rejects with it. */
export function judge(
  core: Core,
  arrival: Arrival,
  { raw, gone }: { readonly raw: RawHttp; readonly gone: AbortSignal },
): Verdict | Promise<Verdict> {
  const considered = consider(core, arrival, { raw })
  const first = questionOf(core, considered)
  return first === undefined ? conclude(core, considered) : consult(core, arrival, { first, gone })
}
