// A question to its answer: whom it is about, who asks, and what the policies say. One engine, one count, one
// log, whatever the proxy speaks.
import { exhaustedBy } from '../../decisions/exhausted.ts'
import { type Determinant, determinantOf, undetermined } from '../../decisions/flows.ts'
import type { Mesh } from '../../decisions/mesh.ts'
import type { Tally } from '../../decisions/tally.ts'
import { fieldOf } from '../../policies/attributes/fields.ts'
import { type ReadableHttp, readAddress } from '../../policies/attributes/request.ts'
import type { PolicySet } from '../../policies/compile.ts'
import { policyNameOf } from '../../policies/decide.ts'
import {
  type Connected,
  type Decided,
  type DecidedHttp,
  evaluateHttp,
  evaluateTcp,
} from '../../policies/evaluate.ts'
import type { Buckets } from '../../policies/limits.ts'
import { peerIdHeader } from '../../proxy-spec/header-names.ts'
import type { Clock } from '../../runtime/clock.ts'
import type { Topic } from '../../runtime/lifecycle.ts'
import type { Log } from '../../runtime/log.ts'
import { explain } from '../../spiffe/errors.ts'
import type { SpiffeId } from '../../spiffe/id.ts'
import type { VerifyPeer } from './peers.ts'
import type { Question } from './question.ts'
import type { Served, Standing } from './standing.ts'

export interface Judging {
  readonly mesh: Mesh
  readonly verifyPeer: VerifyPeer
  readonly tally: Tally
  readonly buckets: Buckets
  /** The port of the workload behind that listener of an identity's proxy. */
  readonly workloadPort: (id: SpiffeId, listener: number | undefined) => number | undefined
  readonly clock: Clock
  readonly log: Log
  /** Says a thing once, however often it happens. */
  readonly once: (key: string, say: () => void) => void
  /** told of the milliseconds that each decision took */
  readonly decided?: Pick<Topic<number>, 'publish' | 'size'> | undefined
}

export interface Passed {
  readonly kind: 'passed'
  readonly source: SpiffeId | undefined
  readonly by: Determinant
  /** fields for the workload, names and values in turn, instead of those of the request */
  readonly sets: readonly string[]
  readonly drops: readonly string[]
  readonly dropsParameters: readonly string[]
}

export interface Stopped {
  readonly kind: 'stopped'
  readonly status: 400 | 401 | 403 | 414 | 429 | 431
  readonly outcome: 'denied' | 'limited' | 'rejected'
  /** for the client: names no policy */
  readonly text: string
  readonly source: SpiffeId | undefined
  readonly by: Determinant
  /** milliseconds */
  readonly retryAfter?: number
}

export type Verdict = Passed | Stopped

const denied = { kind: 'stopped', status: 403, text: 'access denied' } as const
const nobody = { source: undefined, by: undetermined } as const

/** What is asked about, its parties told apart. */
interface Case {
  readonly policies: PolicySet
  readonly connected: Connected & { readonly source: SpiffeId | undefined }
  readonly question: Question
}

/** Fields that a client must not say, in any question: who reads them believes the proxy alone. */
function withoutClaims(http: ReadableHttp, identityHeader: string): ReadableHttp {
  if (identityHeader === peerIdHeader) return http
  const { headers: fields } = http
  const headers = () => {
    const all = typeof fields === 'function' ? fields() : fields
    return all.filter((_, i) => all[i - (i % 2)]?.toLowerCase() !== identityHeader)
  }
  return { ...http, headers }
}

/** What is not set is taken off: a client could have sent it. A name in both would be taken off. */
function changesOf(
  {
    source,
    identityHeader,
  }: Pick<Question, 'identityHeader'> & { readonly source: string | undefined },
  decided: Decided | DecidedHttp,
): Pick<Passed, 'sets' | 'drops' | 'dropsParameters'> {
  const {
    adds = [],
    drops = [],
    dropsParameters = [],
  } = 'authenticated' in decided ? decided.authenticated : {}
  const isUsual = adds.length + drops.length + dropsParameters.length === 0
  // most requests carry no token, and nothing but who asks is new
  if (isUsual && source !== undefined && identityHeader === peerIdHeader)
    return { sets: [peerIdHeader, source], drops, dropsParameters }
  const sets = source === undefined ? adds : [...adds, identityHeader, source]
  const names = new Set(sets.filter((_, i) => i % 2 === 0))
  const claims = identityHeader === peerIdHeader ? [peerIdHeader] : [peerIdHeader, identityHeader]
  return {
    sets,
    drops: [...new Set([...drops, ...claims])].filter((it) => !names.has(it)),
    dropsParameters,
  }
}

/** A rule that wants somebody else asked: there is nobody here to ask, so it denies. */
function tellUnasked({ log, once }: Judging, { decision }: Decided): void {
  const { allow, rule } = decision
  if (allow || rule?.policy.action !== 'CUSTOM') return
  const policy = policyNameOf(decision)
  const { provider } = rule.policy
  once(`CUSTOM ${policy} ${provider}`, () =>
    log.error(
      { policy, provider },
      'a CUSTOM policy denies: the decision socket knows no authorizers',
    ),
  )
}

function conclude(
  judging: Judging,
  { policies, connected, question }: Case,
  decided: Decided,
): Verdict {
  const { source } = connected
  const exhausted = exhaustedBy(judging, decided)
  const by = determinantOf(decided.decision.rule)
  if (judging.tally.count(policies, decided, exhausted)) {
    const { identityHeader } = question
    return { kind: 'passed', source, by, ...changesOf({ source, identityHeader }, decided) }
  }
  tellUnasked(judging, decided)
  if (exhausted === undefined) return { ...denied, outcome: 'denied', source, by }
  const { limit, retryAfter } = exhausted
  return {
    ...{ kind: 'stopped', status: 429, outcome: 'limited', text: 'too many requests' },
    ...{ source, retryAfter, by: { policy: limit.name, rule: limit.index } },
  }
}

function decide(judging: Judging, asked: Case): Verdict {
  const { tally, clock } = judging
  const { policies, connected, question } = asked
  const { http, identityHeader } = question
  if (http === undefined) return conclude(judging, asked, evaluateTcp(policies, connected))
  const raw = withoutClaims(http, identityHeader)
  const result = evaluateHttp(policies, connected, { raw, now: clock.now() })
  if (result.kind === 'decided') return conclude(judging, asked, result)
  tally.reject(connected, result.rejection)
  const { status, reason: text } = result.rejection
  const { source } = connected
  return { kind: 'stopped', status, outcome: 'rejected', text, source, by: undetermined }
}

/** The chain of the client, leaf first, where a listener says it with the request: Envoy sends the leaf alone besides. */
function chainIn(http: ReadableHttp | undefined): string {
  if (http === undefined) return ''
  const { headers } = http
  const fields = typeof headers === 'function' ? headers() : headers
  const said = fieldOf(fields, 'x-forwarded-client-cert') ?? ''
  return /(?:^|[;,])Chain="([^"]*)"/i.exec(said)?.[1] ?? ''
}

/** The verified identity of the client; what refuses it otherwise. */
function sourceOf(
  { verifyPeer }: Judging,
  { certificate, http }: Question,
  { federatesWith }: Served,
) {
  if (certificate === '') return { source: undefined }
  try {
    return { source: verifyPeer(certificate, federatesWith, () => chainIn(http)) }
  } catch (error) {
    return { source: undefined, problem: explain(error) }
  }
}

/** Never throws. */
export function judge(judging: Judging, standing: Standing, question: Question): Verdict {
  const { decided, clock } = judging
  if (decided === undefined || decided.size === 0) return verdictOn(judging, standing, question)
  const began = clock.monotonic()
  const verdict = verdictOn(judging, standing, question)
  decided.publish(clock.monotonic() - began)
  return verdict
}

function verdictOn(judging: Judging, standing: Standing, question: Question): Verdict {
  const { mesh, tally, log, once } = judging
  const { listener, backend, principal, sourceAddress, sni } = question
  const served = standing.of(principal)
  if (served === undefined) {
    const [first] = standing.served
    once(`foreign ${first?.id} ${principal}`, () =>
      log.warn(
        { has: first?.id, wants: principal },
        'a proxy asks for an identity that is not its own',
      ),
    )
    return { ...denied, ...nobody, outcome: 'rejected' }
  }
  const port = question.port ?? judging.workloadPort(served.id, listener)
  const destination = served.at(port, backend)
  const { source, problem } = sourceOf(judging, question, served)
  if (problem !== undefined) {
    tally.reject({ source: undefined, destination }, { status: 403, reason: problem })
    return { ...denied, ...nobody, outcome: 'rejected' }
  }
  const policies = mesh.current().policies.behind(backend)
  const sourceIp =
    sourceAddress === undefined ? undefined : readAddress(sourceAddress, policies.mesh)
  return decide(judging, {
    policies,
    connected: { source, sourceIp, destination, sni },
    question,
  })
}
