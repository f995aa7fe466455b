// May an authority sign from now on, or be trusted no more? Only when the connected agents have followed,
// or when an operator says why they are not waited for.
import { hasCode, IdentityError } from '../spiffe/errors.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Permit, Slot } from './authorities/slot.ts'
import type { Authority } from './authority.ts'
import type { AuthorityKind, OverrideRow } from './store/model.ts'

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

async function demandKnown(
  what: string,
  { acknowledgements, authorities }: Authority,
): Promise<void> {
  const laggards = await acknowledgements.laggards(authorities.sequence)
  if (laggards.length === 0) return
  const [first] = laggards
  const more = laggards.length > 1 ? ` and ${laggards.length - 1} more` : ''
  notYet(
    `cannot ${what} yet: the bundle in force is not acknowledged by ${first?.agentId}${more}`,
    5000,
  )
}

/** An agent that still has nothing but a certificate of this authority could never come back. */
export async function demandNoAgents(
  what: string,
  { id: authorityId }: Slot,
  authority: Authority,
): Promise<void> {
  const { acknowledgements, registry, store } = authority
  const users: SpiffeId[] = []
  for (const id of await acknowledgements.connected()) {
    const serial = registry.agents.get(id)?.serial ?? ''
    const certificate = serial === '' ? undefined : await store.issuance.find(serial)
    if (certificate?.authorityId === authorityId) users.push(id)
  }
  if (users.length === 0) return
  notYet(
    `cannot ${what} yet: ${users.length} connected agents still use a certificate of it, such as ${users[0]}`,
    5000,
  )
}

async function demandRenewed(
  { taintedAt }: Slot,
  { acknowledgements, clock }: Authority,
): Promise<void> {
  const left = taintedAt + renewalTime - clock.now()
  if (left <= 0 || (await acknowledgements.connected()).length === 0) return
  const seconds = Math.ceil(left / 1000)
  notYet(`cannot revoke yet: workloads renew what it signed for another ${seconds} seconds`, left)
}

const demands = {
  activate: (_: Slot, __: AuthorityKind, authority: Authority) =>
    demandKnown('activate', authority),
  async revoke(slot: Slot, kind: AuthorityKind, authority: Authority) {
    await demandKnown('revoke', authority)
    if (kind !== 'x509') return
    await demandRenewed(slot, authority)
    await demandNoAgents('revoke', slot, authority)
  },
} as const

/** An override is recorded only where there was something to go over. */
export function permitFor(
  action: OverrideRow['action'],
  { kind, caller, forceReason }: Asking,
  authority: Authority,
): Permit<Slot> {
  return async (slot) => {
    try {
      await demands[action](slot, kind, authority)
      return undefined
    } catch (error) {
      if (forceReason === '' || !hasCode(error, 'ERR_PRECONDITION')) throw error
      const at = authority.clock.now()
      return { at, caller, action, authorityId: slot.id, reason: forceReason }
    }
  }
}
