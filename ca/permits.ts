// May an authority sign from now on, or be trusted no more? Only when the connected agents have followed,
// or when an operator says why they are not waited for.
import type { Serial } from '../spiffe/certificate.ts'
import { hasCode, IdentityError } from '../spiffe/errors.ts'
import type { Permit, Slot } from './authorities/slots.ts'
import type { Authority } from './authority.ts'
import type { AuthorityKind, OverrideRow } from './store/store.ts'

/** Who asks, and why agents are not waited for; an empty reason is none. */
export interface Asking {
  readonly kind: AuthorityKind
  readonly caller: string
  readonly forceReason: string
}

/** milliseconds in which agents replace what a tainted authority signed: 30 s, and their way here */
const renewalTime = 45_000

function notYet(message: string, retryAfter: number): never {
  throw new IdentityError('ERR_PRECONDITION', message, { retryAfter })
}

function demandKnown(what: string, { acknowledgements, authorities }: Authority): void {
  const laggards = acknowledgements.laggards(authorities.sequence)
  if (laggards.length === 0) return
  const [first] = laggards
  const more = laggards.length > 1 ? ` and ${laggards.length - 1} more` : ''
  notYet(
    `cannot ${what} yet: the bundle in force is not acknowledged by ${first?.agentId}${more}`,
    5000,
  )
}

/** An agent that still has nothing but a certificate of this authority could never come back. */
export function demandNoAgents(
  what: string,
  { id: authorityId }: Slot,
  authority: Authority,
): void {
  const { acknowledgements, registry, store } = authority
  const isBySame = (serial: Serial | '') =>
    serial !== '' && store.issuance.find({ serial, limit: 1 })[0]?.authorityId === authorityId
  const users = acknowledgements.connected().filter((id) => {
    const agent = registry.agents.get(id)
    return agent !== undefined && isBySame(agent.serial)
  })
  if (users.length === 0) return
  notYet(
    `cannot ${what} yet: ${users.length} connected agents still use a certificate of it, such as ${users[0]}`,
    5000,
  )
}

function demandRenewed({ taintedAt }: Slot, { acknowledgements, clock }: Authority): void {
  const left = taintedAt + renewalTime - clock.now()
  if (left <= 0 || acknowledgements.connected().length === 0) return
  const seconds = Math.ceil(left / 1000)
  notYet(`cannot revoke yet: workloads renew what it signed for another ${seconds} seconds`, left)
}

const demands = {
  activate: (_: Slot, __: AuthorityKind, authority: Authority) =>
    demandKnown('activate', authority),
  revoke(slot: Slot, kind: AuthorityKind, authority: Authority) {
    demandKnown('revoke', authority)
    if (kind !== 'x509') return
    demandRenewed(slot, authority)
    demandNoAgents('revoke', slot, authority)
  },
} as const

/** An override is recorded only where there was something to go over. */
export function permitFor(
  action: OverrideRow['action'],
  { kind, caller, forceReason }: Asking,
  authority: Authority,
): Permit<Slot> {
  return (slot) => {
    try {
      demands[action](slot, kind, authority)
      return undefined
    } catch (error) {
      if (forceReason === '' || !hasCode(error, 'ERR_PRECONDITION')) throw error
      const at = authority.clock.now()
      return { at, caller, action, authorityId: slot.id, reason: forceReason }
    }
  }
}
