// What an agent is apart from its sockets: what it knows, what it holds for workloads, how it stands with its
// authority, and what of that is on the disk.
import type { Clock } from '../runtime/clock.ts'
import type { Running } from '../runtime/lifecycle.ts'
import type { Log } from '../runtime/log.ts'
import type { Tracer } from '../runtime/tracing/span.ts'
import { createAddresses } from './addresses.ts'
import { type Audience, createAudience } from './audience.ts'
import type { AgentConfig } from './config.ts'
import type { Follow, Sources } from './control.ts'
import { type AgentCounts, createAgentCounts } from './counts.ts'
import { type DiskCache, openDiskCache, type Part } from './disk-cache.ts'
import { createKnowledge, type Knowledge } from './knowledge.ts'
import type { AgentSvid } from './own-svid.ts'
import { tracePolicies } from './policy-spans.ts'
import { type CutBooks, createCutBooks } from './proxies/cuts.ts'
import { createProxyLedger, type ProxyLedger } from './proxies/ledger.ts'
import { createServices, type Services } from './services.ts'
import { createSession, type Session } from './session.ts'
import { createLedger, type Ledger } from './sidecar/ledger.ts'
import { openState, type StateFile, secretIn } from './state.ts'
import { createSvidCache, type SvidCache } from './svid-cache.ts'
import { renewSvids } from './svid-renewal.ts'
import { createTokenCache, type TokenCache } from './token-svids.ts'

export interface Core extends AsyncDisposable {
  readonly config: AgentConfig
  readonly knowledge: Knowledge
  readonly cache: SvidCache
  readonly tokens: TokenCache
  readonly session: Session
  readonly ledger: Ledger
  readonly proxies: ProxyLedger
  readonly services: Services
  readonly cuts: CutBooks
  readonly audience: Audience
  readonly counts: AgentCounts
  readonly tracer: Tracer
  readonly disk: Pick<DiskCache, 'trouble'>
  readonly clock: Clock
  readonly log: Log
  /** Joins and follows the authority, keeps SVIDs fresh. `done` rejects when this agent is not wanted. */
  start(): Running
}

export interface CoreOptions {
  readonly config: AgentConfig
  readonly tracer: Tracer
  readonly clock: Clock
  readonly log: Log
  /** Where a crash harness may stop: before and after the agent's own SVID is on the disk. */
  readonly between?: ((step: 'unsaved' | 'saved', svid: AgentSvid) => void) | undefined
}

/** Loaded when the authority is connected to. */
type Follows = Readonly<
  Record<AgentConfig['authority']['kind'], (sources: Sources) => Promise<Follow>>
>
const follows: Follows = {
  castellan: async (sources) => (await import('./control.ts')).followControl(sources),
  spire: async () => (await import('./spire-sync.ts')).followSpire(),
}

function stoppable(file: StateFile, between: CoreOptions['between']): StateFile {
  if (between === undefined) return file
  return {
    ...file,
    save(next) {
      between('unsaved', next.svid)
      file.save(next)
      between('saved', next.svid)
    },
  }
}

function openTokens(knowledge: Knowledge, clock: Clock): TokenCache {
  return createTokenCache({
    ...{ clock, taints: knowledge.taints },
    isBelieved(keyId) {
      const { jwt, wit } = knowledge.own()
      return [...jwt, ...wit].some((key) => key.keyId === keyId)
    },
  })
}

export function openCore(options: CoreOptions): Core {
  const { config, tracer, clock, log, between } = options
  const secret = secretIn(config.state)
  const state = stoppable(openState(config.state, config.trustDomain, secret), between)
  const disk = openDiskCache({ folder: config.state, secret, clock, log })
  const knowledge = createKnowledge(config.trustDomain, clock)
  const cache = createSvidCache({ knowledge, clock, log })
  const tokens = openTokens(knowledge, clock)
  const known = state.load()
  if (known === undefined) disk.clear()
  else {
    const told = disk.knowledge()
    if (told !== undefined) knowledge.apply(told)
    // newer than what was told: on the disk before it was acknowledged
    knowledge.begin(known.bundle)
    const identities = disk.identities()
    cache.restore(identities.svids)
    tokens.restore(identities.tokens)
  }
  const cuts = createCutBooks(known === undefined ? {} : disk.cuts())
  const audience = createAudience(clock)
  const ledger = createLedger({ decides: config.decisions !== undefined })
  const proxies = createProxyLedger()
  const services = createServices({
    configured: config.services,
    ...{ knowledge, ledger, proxies, clock },
  })
  const counts = createAgentCounts()
  const session = createSession({
    ...{ config, knowledge, state, counts, tracer, clock, log },
    addresses: createAddresses(config.authority.address),
    svid: known?.svid,
    follow: () => follows[config.authority.kind]({ ledger, proxies, services }),
    forget: disk.forget,
    told: audience.caughtUp,
  })
  const running = new AsyncDisposableStack()
  return {
    ...{ config, knowledge, cache, tokens, session, disk, audience },
    ...{ ledger, proxies, services, cuts, counts, tracer, clock, log },
    start() {
      const kept = {
        knowledge: knowledge.snapshot,
        identities: () => ({ svids: cache.kept(), tokens: tokens.kept() }),
        cuts: cuts.kept,
      }
      const topics = { knowledge: [knowledge], identities: [cache, tokens], cuts: [cuts] }
      const onChange = (part: Part, changed: () => void): Disposable => {
        const stack = new DisposableStack()
        for (const topic of topics[part]) stack.use(topic.onChange(changed))
        return stack
      }
      running.use(disk.follow(kept, onChange))
      running.use(services.follow())
      const { request } = session
      running.use(renewSvids({ cache, knowledge, request, counts, tracer, clock, log }))
      if (tracer.isOn) running.use(tracePolicies({ knowledge, ledger, proxies, tracer }))
      const loop = running.use(session.loop())
      return { done: loop.done, [Symbol.asyncDispose]: () => running.disposeAsync() }
    },
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  }
}
