// Step 3 of issuance: what each kind of caller may have. Default deny: a combination without a row in
// this file does not exist.
import { denialText, describeRule } from '../spiffe/deny-list.ts'
import { IdentityError } from '../spiffe/errors.ts'
import { isMemberOf, pathOf, type SpiffeId, spiffeIdOf, type TrustDomain } from '../spiffe/id.ts'
import type { Attested } from './attestors/attestor.ts'
import type { TokenKind } from './authorities/authorities.ts'
import type { GrantTerms } from './issue.ts'
import type { Registry } from './registry.ts'
import { type AgentRow, type EntryRow, unusableToken } from './store/model.ts'

/** What is asked for, beside the key. */
export type Wanted =
  | { readonly kind: 'agent' }
  | { readonly kind: 'entry'; readonly entryId: string }
  | {
      readonly kind: 'mint'
      readonly id: SpiffeId
      readonly dnsNames: readonly string[]
      /** milliseconds, 0 for the default */
      readonly lifetime: number
    }
  /** lifetime in milliseconds, 0 for the default */
  | { readonly kind: 'service account'; readonly lifetime: number }
  | { readonly kind: 'server' }

/** What is asked for as a token. */
export type WantedToken =
  | { readonly kind: 'entry'; readonly entryId: string; readonly token: TokenKind }
  | {
      readonly kind: 'mint'
      readonly id: SpiffeId
      readonly token: TokenKind
      /** milliseconds, 0 for the default */
      readonly lifetime: number
    }

export interface TokenGrant {
  readonly spiffeId: SpiffeId
  /** milliseconds; clamped to the life of the signing key */
  readonly lifetime: number
  readonly entryId: string
  readonly requester: string
  /** whether a JWT-SVID carries its `jti` */
  readonly includeId: boolean
  readonly hint: string
}

export interface GrantRules {
  readonly trustDomain: TrustDomain
  readonly registry: Registry
  readonly now: () => number
  /** milliseconds */
  readonly lifetimes: Readonly<Record<'default' | 'agent' | 'floor' | 'cap', number>>
  /** names of the server beside its SPIFFE ID, for clients that check those */
  readonly serverNames: readonly string[]
}

function denied(message: string): never {
  throw new IdentityError('ERR_DENIED', message)
}

function clamp(wanted: number, { lifetimes }: GrantRules): number {
  return Math.min(
    Math.max(wanted === 0 ? lifetimes.default : wanted, lifetimes.floor),
    lifetimes.cap,
  )
}

function joined(facts: Extract<Attested, { kind: 'node' }>, rules: GrantRules): GrantTerms {
  const known = rules.registry.agents.get(facts.agentId)
  if (known?.banned === true) throw new IdentityError('ERR_AGENT_BANNED', `${known.id} is banned`)
  const { token } = facts
  if (known !== undefined && !facts.canReattest) {
    // SPIRE's agents tell a used token, which is worth another try, from a denial, which ends them
    if (token !== undefined) throw new IdentityError('ERR_JOIN_TOKEN', unusableToken)
    denied(`${known.id} is attested already and cannot attest again`)
  }
  const agentOf = (serial: AgentRow['serial'], notAfter: number): AgentRow => ({
    id: facts.agentId,
    attestationType: facts.attestationType,
    serial,
    pendingSerial: '',
    notAfter,
    banned: false,
    canReattest: facts.canReattest,
    selectors: facts.selectors,
    version: '',
    attestedAt: rules.now(),
  })
  return {
    spiffeId: facts.agentId,
    dnsNames: [],
    lifetime: rules.lifetimes.agent,
    entryId: '',
    requester: facts.agentId,
    ...(token === undefined ? {} : { token }),
    change: ({ serial, notAfter }) => ({
      kind: 'attested',
      agent: agentOf(serial, notAfter),
      token: token?.hash,
    }),
  }
}

function renewed({ id, canReattest }: AgentRow, rules: GrantRules): GrantTerms {
  if (canReattest) {
    const message = `${id} renews by attesting again`
    throw new IdentityError('ERR_AGENT_MUST_REATTEST', message)
  }
  return {
    spiffeId: id,
    dnsNames: [],
    lifetime: rules.lifetimes.agent,
    entryId: '',
    requester: id,
    change: ({ serial, notAfter }) => ({ kind: 'renewed', id, serial, notAfter }),
  }
}

function entryBelow(agent: AgentRow, entryId: string, rules: GrantRules): EntryRow {
  const entry = rules.registry.entries.get(entryId)
  if (entry === undefined) throw new IdentityError('ERR_NOT_FOUND', `entry ${entryId} not found`)
  if (!rules.registry.entries.isAuthorized(agent, entry, rules.now())) {
    denied(`entry ${entryId} is not below agent ${agent.id}`)
  }
  return entry
}

function ofEntry(agent: AgentRow, entryId: string, rules: GrantRules): GrantTerms {
  const entry = entryBelow(agent, entryId, rules)
  return {
    spiffeId: entry.spiffeId,
    dnsNames: entry.dnsNames,
    lifetime: clamp(entry.x509SvidTtl * 1000, rules),
    entryId,
    requester: agent.id,
  }
}

function demandMintable(id: SpiffeId, rules: GrantRules): void {
  if (!isMemberOf(id, rules.trustDomain))
    denied(`${id} is not of trust domain ${rules.trustDomain}`)
  const path = pathOf(id)
  if (path === '' || path === '/spire' || path.startsWith('/spire/'))
    denied(`${id} cannot be minted`)
}

function minted(
  name: string,
  wanted: Extract<Wanted, { kind: 'mint' }>,
  rules: GrantRules,
): GrantTerms {
  const { id, dnsNames, lifetime } = wanted
  demandMintable(id, rules)
  return { spiffeId: id, dnsNames, lifetime: clamp(lifetime, rules), entryId: '', requester: name }
}

/** Istio's agents schedule by what they asked for: what they cannot have is an error. */
function ofServiceAccount(
  { id, name }: Extract<Attested, { kind: 'service account' }>,
  lifetime: number,
  rules: GrantRules,
): GrantTerms {
  const { floor, cap, default: usual } = rules.lifetimes
  if (lifetime !== 0 && (lifetime < floor || lifetime > cap)) {
    const problem = `is not between ${floor / 1000} and ${cap / 1000} seconds`
    throw new IdentityError('ERR_BAD_REQUEST', `validity_duration ${problem}`, {
      fields: [{ field: 'validity_duration', problem }],
    })
  }
  return {
    spiffeId: id,
    dnsNames: [],
    lifetime: lifetime === 0 ? usual : lifetime,
    entryId: '',
    requester: name,
  }
}

function decide(attested: Attested, wanted: Wanted, rules: GrantRules): GrantTerms {
  const { kind } = attested
  if (kind === 'node' && wanted.kind === 'agent') return joined(attested, rules)
  if (kind === 'agent' && wanted.kind === 'agent') return renewed(attested.agent, rules)
  if (kind === 'agent' && wanted.kind === 'entry')
    return ofEntry(attested.agent, wanted.entryId, rules)
  if (kind === 'administrator' && wanted.kind === 'mint')
    return minted(attested.name, wanted, rules)
  if (kind === 'service account' && wanted.kind === 'service account')
    return ofServiceAccount(attested, wanted.lifetime, rules)
  if (kind === 'self' && wanted.kind === 'server') {
    const spiffeId = spiffeIdOf(rules.trustDomain, '/spire/server')
    const dnsNames = rules.serverNames
    return { spiffeId, dnsNames, lifetime: clamp(0, rules), entryId: '', requester: spiffeId }
  }
  return denied(`a caller of kind ${kind} may not have a certificate of kind ${wanted.kind}`)
}

/** Whoever is on the deny-list gets nothing new. */
export function demandNotDenied(id: SpiffeId, { registry, now }: GrantRules): void {
  const rule = registry.denyList().againstId(id, now())
  if (rule === undefined) return
  const cause = new Error(describeRule(rule))
  throw new IdentityError('ERR_DENIED', denialText(rule), { cause })
}

/** The terms of a certificate for `attested`. Throws ERR_DENIED, ERR_NOT_FOUND or ERR_AGENT_BANNED. */
export function termsFor(attested: Attested, wanted: Wanted, rules: GrantRules): GrantTerms {
  const terms = decide(attested, wanted, rules)
  demandNotDenied(terms.spiffeId, rules)
  return terms
}

/** A JWT-SVID is short because nothing but its expiry ends it; a WIT-SVID is useless without its key. */
const tokenLifetimes: Readonly<Record<TokenKind, number>> = { jwt: 300_000, wit: 3_600_000 }

function tokenLifetime(wanted: number, token: TokenKind, { lifetimes }: GrantRules): number {
  return Math.min(wanted === 0 ? tokenLifetimes[token] : wanted, lifetimes.cap)
}

function decideToken(attested: Attested, wanted: WantedToken, rules: GrantRules): TokenGrant {
  const { token } = wanted
  if (attested.kind === 'agent' && wanted.kind === 'entry') {
    const entry = entryBelow(attested.agent, wanted.entryId, rules)
    const asked = token === 'jwt' ? entry.jwtSvidTtl * 1000 : 0
    return {
      spiffeId: entry.spiffeId,
      lifetime: tokenLifetime(asked, token, rules),
      entryId: entry.id,
      requester: attested.agent.id,
      includeId: entry.includeJti,
      hint: entry.hint,
    }
  }
  if (attested.kind === 'administrator' && wanted.kind === 'mint') {
    demandMintable(wanted.id, rules)
    return {
      spiffeId: wanted.id,
      lifetime: tokenLifetime(wanted.lifetime, token, rules),
      entryId: '',
      requester: attested.name,
      includeId: false,
      hint: '',
    }
  }
  return denied(`a caller of kind ${attested.kind} may not have a token of kind ${wanted.kind}`)
}

/** The terms of a token SVID for `attested`. Throws ERR_DENIED or ERR_NOT_FOUND. */
export function tokenTermsFor(
  attested: Attested,
  wanted: WantedToken,
  rules: GrantRules,
): TokenGrant {
  const grant = decideToken(attested, wanted, rules)
  demandNotDenied(grant.spiffeId, rules)
  return grant
}
