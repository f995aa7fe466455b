// What each proxy that this agent drives is to be now: made when something that it depends on has changed.
import { createPolicySets } from '../../decisions/policy-sets.ts'
import { noPolicies, type PolicySet } from '../../policies/compile.ts'
import type { Labels } from '../../policies/language/policy.ts'
import type { Clock } from '../../runtime/clock.ts'
import { createTopic } from '../../runtime/lifecycle.ts'
import type { Log } from '../../runtime/log.ts'
import { parseCertificate } from '../../spiffe/certificate.ts'
import { explain } from '../../spiffe/errors.ts'
import { parseSpiffeId, type SpiffeId } from '../../spiffe/id.ts'
import { keyIdOf } from '../../spiffe/key-id.ts'
import type { AgentConfig } from '../config.ts'
import type { AgentEntry } from '../entries.ts'
import type { Knowledge } from '../knowledge.ts'
import type { Services } from '../services.ts'
import { labelsOf } from '../sidecar/state.ts'
import type { SvidCache, WorkloadSvid } from '../svid-cache.ts'
import { crlsOf } from '../xds/crls.ts'
import { earliest } from '../xds/resource.ts'
import { createCuts, type Denial } from './cuts.ts'
import { type Situation, type Snapshot, snapshotOf } from './envoy/snapshot.ts'
import { grpcSnapshot } from './grpc/snapshot.ts'
import type { Form } from './ledger.ts'
import type { DrivenSpec, Specs } from './specs.ts'

export interface DrivenOptions {
  readonly knowledge: Knowledge
  readonly cache: Pick<SvidCache, 'svids' | 'want'>
  readonly config: Pick<AgentConfig, 'sds' | 'decisions'>
  readonly services: Pick<Services, 'of' | 'onChange'>
  readonly specs: Pick<Specs, 'current' | 'onChange'>
  /** path of the socket that answers decisions */
  readonly decisions: string | undefined
  readonly clock: Clock
  readonly log: Log
}

export interface Driving {
  readonly id: SpiffeId
  /** undefined while its SVID is made */
  readonly snapshot: Snapshot | undefined
  /** the newest cut; listeners are told of it once those that are denied cannot come back */
  readonly cut: string
  /** version of the policies that it enforces */
  readonly policies: bigint
}

export interface Driven {
  /**
   * What the proxy of these entries is to be, in that form, with its connections cut as said, the newest way when
   * left out; undefined where no spec is of their identities.
   */
  of(entries: readonly AgentEntry[], form: Form, cut?: string): Driving | undefined
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

interface Revoked {
  readonly ids: readonly SpiffeId[]
  readonly denials: readonly Denial[]
  /** what else is denied, and Envoy cannot see, in words */
  readonly unseen: readonly string[]
  /** milliseconds since the epoch */
  readonly until: number | undefined
}

type Rules = NonNullable<ReturnType<Knowledge['revocation']>['message']>['rules']

/** Roots that are denied are left out of what Envoy believes; of what is below them it is told nothing. */
function isDeniedBelow(rules: Rules, { knowledge }: DrivenOptions): boolean {
  const { authorities } = knowledge.own().x509
  const roots = new Set(authorities.map(({ publicKey }) => keyIdOf(publicKey).toString('hex')))
  return rules.some(({ target }) => target.case === 'authorityId' && !roots.has(target.value))
}

/** Envoy knows certificates that are denied by the CRLs, and gets all of them or none. */
function listedBy(rules: Rules, { knowledge, clock }: DrivenOptions) {
  const isAsked = rules.some(({ target }) => target.case === 'serial')
  if (!isAsked) return { isWhole: true }
  const { crls, until } = crlsOf(knowledge.own(), knowledge.revocation().crls, clock.now())
  return { isWhole: crls.length > 0, until }
}

function revokedBy(options: DrivenOptions): Revoked {
  const { knowledge, clock } = options
  const rules = knowledge.revocation().message?.rules ?? []
  const now = clock.now() / 1000
  const held = rules.filter(({ expiresAt }) => expiresAt === 0n || Number(expiresAt) > now)
  const ends = held.flatMap(({ expiresAt }) => (expiresAt === 0n ? [] : [Number(expiresAt) * 1000]))
  const { isWhole, until } = listedBy(held, options)
  if (until !== undefined) ends.push(until)
  const unseen = [
    ...(isDeniedBelow(held, options)
      ? ['an authority below our own is on the deny-list: only the agent looks at who has signed']
      : []),
    ...(isWhole
      ? []
      : ['a certificate is on the deny-list, and the CRLs that would say so are not whole']),
  ]
  return {
    unseen,
    denials: held,
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
  readonly cut: string
  readonly revocation: Revoked
}

export function createDriven(options: DrivenOptions): Driven {
  const { knowledge, cache, config, services, specs, decisions } = options
  const compiled = createCompiled(options)
  const cutBy = createCuts()
  const topic = createTopic<void>()
  specs.onChange(() => topic.publish())
  services.onChange(() => topic.publish())
  /** the newest of each form and spec, and what it was made of */
  const made = new Map<string, { readonly of: readonly unknown[]; readonly snapshot: Snapshot }>()

  function make(it: DrivenSpec, { mine, form, life, cut, revocation }: Making): Snapshot {
    const { set } = compiled()
    const { ids: revoked, unseen, until } = revocation
    const isFederated = mine.some(({ federatesWith }) => federatesWith.length > 0)
    const labels: Labels = labelsOf(mine)[0]?.labels ?? {}
    const endpoints = services.of(it.spec.outbound.flatMap(({ service }) => service ?? []))
    const rest = JSON.stringify([labels, revoked, unseen, until, cut, [...endpoints]])
    const of = [it.spec, set, life, isFederated, rest]
    const key = `${form} ${it.file}`
    const known = made.get(key)
    if (known?.of.every((part, i) => part === of[i]) === true) return known.snapshot
    const own = `spiffe://${knowledge.own().x509.trustDomain}`
    const all = config.sds.defaultAllBundlesName
    const snapshot = dialects[form]({
      ...{ spec: it.spec, identity: it.identity, labels, policies: set, trust: { own, all } },
      ...{ isFederated, revoked, unseen, endpoints, decisions, life, cut },
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
      const revocation = revokedBy(options)
      const newest = cutBy(revocation.denials)
      const cut = wanted ?? newest
      const snapshot = svid && make(it, { mine, form, life: lifeOf(svid), cut, revocation })
      return { id: it.identity, snapshot, cut: newest, policies: compiled().version }
    },
    onChange: (listener) => topic.subscribe(listener),
  }
}
