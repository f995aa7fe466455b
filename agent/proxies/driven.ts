// What each proxy that this agent drives is to be now: made when something that it depends on has changed.
import { createPolicySets } from '../../decisions/policy-sets.ts'
import { noPolicies, type PolicySet } from '../../policies/compile.ts'
import type { Labels } from '../../policies/language/policy.ts'
import type { Clock } from '../../runtime/clock.ts'
import { createTopic } from '../../runtime/lifecycle.ts'
import type { Log } from '../../runtime/log.ts'
import { parseCertificate } from '../../spiffe/certificate.ts'
import { explain } from '../../spiffe/errors.ts'
import { isSpiffeId, parseSpiffeId, type SpiffeId, trustDomainOf } from '../../spiffe/id.ts'
import { keyIdOf } from '../../spiffe/key-id.ts'
import type { AgentConfig } from '../config.ts'
import type { AgentEntry } from '../entries.ts'
import type { Knowledge } from '../knowledge.ts'
import type { Services } from '../services.ts'
import { labelsOf } from '../sidecar/state.ts'
import type { SvidCache, WorkloadSvid } from '../svid-cache.ts'
import { crlsOf } from '../xds/crls.ts'
import { earliest } from '../xds/resource.ts'
import type { Concerned, CutBooks, Cuts } from './cuts.ts'
import { type Situation, type Snapshot, snapshotOf } from './envoy/snapshot.ts'
import { type DeniedToPrograms, deniedToPrograms } from './grpc/denied.ts'
import { grpcSnapshot } from './grpc/snapshot.ts'
import type { Form } from './ledger.ts'
import { createLives } from './lives.ts'
import type { DrivenSpec, Specs } from './specs.ts'

export interface DrivenOptions {
  readonly knowledge: Knowledge
  readonly cache: Pick<SvidCache, 'svids' | 'want'>
  readonly config: Pick<AgentConfig, 'sds' | 'decisions'>
  readonly services: Pick<Services, 'of' | 'onChange'>
  readonly specs: Pick<Specs, 'current' | 'onChange'>
  readonly cuts: Pick<CutBooks, 'of'>
  /** path of the socket that answers decisions */
  readonly decisions: string | undefined
  readonly clock: Clock
  readonly log: Log
}

export interface Driving {
  readonly id: SpiffeId
  /** undefined while its SVID is made */
  readonly snapshot: Snapshot | undefined
  /** the newest; listeners are told of them once those that are denied cannot come back */
  readonly cuts: Cuts
  /** version of the policies that it enforces */
  readonly policies: bigint
}

export interface Driven {
  /**
   * What the proxy of these entries is to be, in that form, with its connections cut as said, the newest way when
   * left out; undefined where no spec is of their identities.
   */
  of(entries: readonly AgentEntry[], form: Form, cuts?: Cuts): Driving | undefined
  /** Called when specs have changed; what the agent is told is told by its knowledge. */
  onChange(listener: () => void): Disposable
}

/** The policies in force, compiled once for each push; those that cannot be used leave the former in force. */
function createCompiled({ knowledge, config, clock, log }: DrivenOptions) {
  const { trustedHops = 0, trustedProxies = [] } = config.decisions ?? {}
  const compiled = createPolicySets({
    // whoever decides, the client is the same
    trusted: { trustedHops, trustedProxies },
    // Envoy verifies no tokens: what needs a key is left to the agent's decisions
    jwks: () => undefined,
    clock,
  })
  let seen: unknown
  let current: { readonly set: PolicySet; readonly version: bigint } = {
    set: noPolicies,
    version: 0n,
  }
  return () => {
    const message = knowledge.policies()
    const isDue = (current.set.changesAt ?? Infinity) <= clock.now()
    if (message === seen && !isDue) return current
    seen = message
    try {
      const set = compiled(message, knowledge.own().x509.trustDomain)
      current = { set, version: message?.version ?? 0n }
    } catch (error) {
      log.error({ problem: explain(error) }, 'policies refused, driven proxies keep the former')
    }
    return current
  }
}

const dialects: Readonly<Record<Form, (situation: Situation) => Snapshot>> = {
  envoy: snapshotOf,
  grpc: grpcSnapshot,
}

const lifeOf = ({ certificates: [leaf] }: WorkloadSvid): number => {
  if (leaf === undefined) return 0
  const { notBefore, notAfter } = parseCertificate(leaf)
  return notAfter - notBefore
}

type Rules = NonNullable<ReturnType<Knowledge['revocation']>['message']>['rules']

interface Revoked extends Partial<Pick<DeniedToPrograms, 'remarks' | 'trust'>> {
  readonly ids: readonly SpiffeId[]
  readonly denials: Rules
  readonly servers?: Situation['servers']
  /** what else is denied, and Envoy cannot see, in words */
  readonly unseen: readonly string[]
  /** milliseconds since the epoch */
  readonly until: number | undefined
}

function rootsOf({ knowledge }: DrivenOptions): ReadonlySet<string> {
  const { authorities } = knowledge.own().x509
  return new Set(authorities.map(({ publicKey }) => keyIdOf(publicKey).toString('hex')))
}

/** Roots that are denied are left out of what Envoy believes; of what is below them it is told nothing. */
function isDeniedBelow(rules: Rules, options: DrivenOptions): boolean {
  const roots = rootsOf(options)
  return rules.some(
    ({ target, root }) => target.case === 'authorityId' && !root && !roots.has(target.value),
  )
}

/**
 * Milliseconds after which every authority has put a denial into its list: what none names then is over, or its issuer
 * is not believed any more.
 */
const listing = 120_000

/** Envoy knows certificates that are denied by the CRLs: those that no list names yet it would let in. */
function unlistedOf(rules: Rules, { knowledge, clock }: DrivenOptions) {
  const denied = rules.filter(({ target }) => target.case === 'serial')
  if (denied.length === 0) return { rules: [] }
  const now = clock.now()
  const { serials, until } = crlsOf(knowledge.own(), knowledge.revocation().crls, now)
  if (serials === undefined) return { rules: denied }
  const listed: ReadonlySet<string | undefined> = serials
  const endOf = ({ createdAt }: Rules[number]) => Number(createdAt) * 1000 + listing
  const awaited = denied.filter((it) => !listed.has(it.target.value) && endOf(it) > now)
  return { rules: awaited, until: earliest(until, ...awaited.map(endOf)) }
}

const below =
  'an authority below our own is on the deny-list: only the agent looks at who has signed'

/** Whom Envoy must not call: there is nobody to ask about servers. */
function serversIn(unlisted: Rules, isBelow: boolean): Situation['servers'] {
  const holders = unlisted.map(({ issuedTo }) => issuedTo).filter((it) => isSpiffeId(it))
  const isUnknown = holders.length < unlisted.length
  return {
    denied: holders,
    barred: [
      ...(isBelow ? [below] : []),
      ...(isUnknown
        ? ['a certificate is on the deny-list, of which nobody knows whose it is']
        : []),
    ],
  }
}

function revokedBy(options: DrivenOptions, form: Form): Revoked {
  const { knowledge, clock } = options
  const rules = knowledge.revocation().message?.rules ?? []
  const now = clock.now() / 1000
  const held = rules.filter(({ expiresAt }) => expiresAt === 0n || Number(expiresAt) > now)
  const ends = held.flatMap(({ expiresAt }) => (expiresAt === 0n ? [] : [Number(expiresAt) * 1000]))
  if (form === 'grpc') {
    const denied = deniedToPrograms(held, { roots: rootsOf(options), now: clock.now() })
    return { ...denied, denials: held, until: earliest(...ends, denied.until) }
  }
  const { rules: unlisted, until } = unlistedOf(held, options)
  if (until !== undefined) ends.push(until)
  const isBelow = isDeniedBelow(held, options)
  const unseen = [
    ...(isBelow ? [below] : []),
    ...(unlisted.length === 0
      ? []
      : ['a certificate is on the deny-list, and the CRLs that would say so are not whole']),
  ]
  return {
    unseen,
    denials: held,
    servers: serversIn(unlisted, isBelow),
    ids: held.flatMap(({ target }) =>
      target.case === 'spiffeId' ? [parseSpiffeId(target.value)] : [],
    ),
    until: ends.length === 0 ? undefined : Math.min(...ends),
  }
}

interface Making {
  readonly mine: readonly AgentEntry[]
  readonly form: Form
  /** milliseconds */
  readonly life: number
  readonly cuts: Cuts
  readonly revocation: Revoked
}

/** Names of identities concern who expects them; what else is denied may concern whoever calls our own. */
function concernedBy(denials: Rules, { spec, identity }: DrivenSpec): Concerned {
  const own = trustDomainOf(identity)
  const outbound = spec.outbound.map((it, i): [string, Rules] => {
    const expected: ReadonlySet<string> = new Set(it.expect)
    const isOwn = it.expect.some((id) => trustDomainOf(id) === own)
    const its = denials.filter(({ target }) =>
      target.case === 'spiffeId' ? expected.has(target.value) : isOwn,
    )
    return [it.name ?? `outbound-${i}`, its]
  })
  return { inbound: denials, outbound: new Map(outbound) }
}

export function createDriven(options: DrivenOptions): Driven {
  const { knowledge, cache, config, services, specs, decisions } = options
  const compiled = createCompiled(options)
  const steady = createLives()
  const topic = createTopic<void>()
  specs.onChange(() => topic.publish())
  services.onChange(() => topic.publish())
  /** the newest of each form and spec, and what it was made of */
  const made = new Map<string, { readonly of: readonly unknown[]; readonly snapshot: Snapshot }>()

  function make(it: DrivenSpec, { mine, form, life, cuts, revocation }: Making): Snapshot {
    const { set } = compiled()
    const { ids: revoked, unseen, servers, remarks, trust: believed, until } = revocation
    const isFederated = mine.some(({ federatesWith }) => federatesWith.length > 0)
    const labels: Labels = labelsOf(mine)[0]?.labels ?? {}
    const endpoints = services.of(it.spec.outbound.flatMap(({ service }) => service ?? []))
    const known = [labels, revoked, unseen, servers, remarks, believed, until, cuts, [...endpoints]]
    const rest = JSON.stringify(known)
    const of = [it.spec, set, life, isFederated, rest]
    const key = `${form} ${it.file}`
    const former = made.get(key)
    if (former?.of.every((part, i) => part === of[i]) === true) return former.snapshot
    const own = `spiffe://${knowledge.own().x509.trustDomain}`
    const all = config.sds.defaultAllBundlesName
    const snapshot = dialects[form]({
      ...{ spec: it.spec, identity: it.identity, labels, policies: set, trust: { own, all } },
      ...{
        isFederated,
        revoked,
        unseen,
        remarks,
        believed,
        endpoints,
        decisions,
        life,
        cuts,
        servers,
      },
      asksAlways: it.asksAlways,
    })
    const whole = { ...snapshot, changesAt: earliest(snapshot.changesAt, until) }
    made.set(key, { of, snapshot: whole })
    return whole
  }

  return {
    of(entries, form, wanted) {
      const ids = new Set(entries.map(({ spiffeId }) => spiffeId))
      const it = specs.current().find(({ identity }) => ids.has(identity))
      if (it === undefined) return undefined
      const mine = entries.filter(({ spiffeId }) => spiffeId === it.identity)
      const [entry] = mine
      const svid = entry && cache.svids.get(entry.id)
      if (entry !== undefined && svid === undefined) cache.want(entry)
      const key = `${form} ${it.file}`
      const revocation = revokedBy(options, form)
      const newest = options.cuts.of(key, concernedBy(revocation.denials, it))
      const cuts = wanted ?? newest
      const snapshot =
        svid && make(it, { mine, form, life: steady(key, lifeOf(svid)), cuts, revocation })
      return { id: it.identity, snapshot, cuts: newest, policies: compiled().version }
    },
    onChange: (listener) => topic.subscribe(listener),
  }
}
