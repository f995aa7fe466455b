// spire.api.server.localauthority.v1.LocalAuthority: an operator's hand on the rotation of each kind.
import { LocalAuthority } from '../../proto/gen/spire/api/server/localauthority/v1/localauthority_pb.js'
import { type Service, service } from '../../runtime/grpc/service.ts'
import type { Log } from '../../runtime/log.ts'
import type { Serial } from '../../spiffe/certificate.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import type { Slot, Slots } from '../authorities/slots.ts'
import type { Authority } from '../authority.ts'
import type { Peer } from '../callers.ts'
import type { AuthorityState } from '../store/store.ts'

const toWire = ({ id, notAfter }: Slot) => ({
  authorityId: id,
  expiresAt: BigInt(Math.floor(notAfter / 1000)),
})

/** The newest in a state: of old ones there may be several. */
function newest(slots: Slots<Slot>, state: AuthorityState) {
  const slot = slots.all().findLast((it) => it.state === state)
  return slot === undefined ? undefined : toWire(slot)
}

function stateOf(slots: Slots<Slot>) {
  const [active, prepared, old] = (['active', 'prepared', 'old'] as const).map((state) =>
    newest(slots, state),
  )
  return {
    ...(active === undefined ? {} : { active }),
    ...(prepared === undefined ? {} : { prepared }),
    ...(old === undefined ? {} : { old }),
  }
}

interface Request {
  readonly authorityId: string
}

/** milliseconds in which agents replace what a tainted authority signed: 30 s, and their way here */
const renewalTime = 45_000

/** An agent that still has nothing but a certificate of this authority could never come back. */
function demandUnused({ id: authorityId, taintedAt }: Slot, authority: Authority): void {
  const { acknowledgements, clock, registry, store } = authority
  const left = taintedAt + renewalTime - clock.now()
  if (left > 0 && acknowledgements.connected().length > 0) {
    throw new IdentityError(
      'ERR_PRECONDITION',
      `cannot revoke yet: workloads renew what it signed for another ${Math.ceil(left / 1000)} seconds`,
      { retryAfter: left },
    )
  }
  const isBySame = (serial: Serial | '') =>
    serial !== '' && store.issuance.find({ serial, limit: 1 })[0]?.authorityId === authorityId
  const users = acknowledgements.connected().filter((id) => {
    const agent = registry.agents.get(id)
    return agent !== undefined && isBySame(agent.serial)
  })
  if (users.length === 0) return
  throw new IdentityError(
    'ERR_PRECONDITION',
    `cannot revoke yet: ${users.length} connected agents still use a certificate of it, such as ${users[0]}`,
    { retryAfter: 5000 },
  )
}

/** The four steps for one kind; each is logged with its outcome. */
function stepsOf(slots: Slots<Slot>, kind: string, { authority, log }: Parts) {
  const say = (what: string, slot: Slot) => {
    log.warn({ audit: true, kind, authorityId: slot.id }, `an operator ${what} an authority`)
    return toWire(slot)
  }
  const demandKnown = (what: string) => {
    const laggards = authority.acknowledgements.laggards(authority.authorities.sequence)
    if (laggards.length === 0) return
    const [first] = laggards
    const more = laggards.length > 1 ? ` and ${laggards.length - 1} more` : ''
    throw new IdentityError(
      'ERR_PRECONDITION',
      `cannot ${what} yet: the bundle in force is not acknowledged by ${first?.agentId}${more}`,
      { retryAfter: 5000 },
    )
  }
  return {
    state: () => stateOf(slots),
    prepare: async () => ({ preparedAuthority: say('prepared', await slots.prepare()) }),
    async activate({ authorityId }: Request) {
      const slot = await slots.activate(authorityId, () => demandKnown('activate'))
      return { activatedAuthority: say('activated', slot) }
    },
    async taint({ authorityId }: Request) {
      return { taintedAuthority: say('tainted', await slots.taint(authorityId)) }
    },
    async revoke({ authorityId }: Request) {
      const slot = await slots.revoke(authorityId, (old) => {
        demandKnown('revoke')
        if (kind === 'x509') demandUnused(old, authority)
      })
      return { revokedAuthority: say('revoked', slot) }
    },
  }
}

interface Parts {
  readonly authority: Authority
  readonly log: Log
}

function noUpstream(): never {
  throw new IdentityError('ERR_PRECONDITION', 'this authority has no upstream authority')
}

export function localAuthorityService(authority: Authority, log: Log): Service<Peer> {
  const { authorities } = authority
  const x509 = stepsOf(authorities, 'x509', { authority, log })
  const jwt = stepsOf(authorities.jwt, 'jwt', { authority, log })
  const wit = stepsOf(authorities.wit, 'wit', { authority, log })
  return service<typeof LocalAuthority, Peer>(LocalAuthority, {
    getX509AuthorityState: x509.state,
    prepareX509Authority: x509.prepare,
    activateX509Authority: x509.activate,
    taintX509Authority: x509.taint,
    revokeX509Authority: x509.revoke,
    taintX509UpstreamAuthority: noUpstream,
    revokeX509UpstreamAuthority: noUpstream,
    getJWTAuthorityState: jwt.state,
    prepareJWTAuthority: jwt.prepare,
    activateJWTAuthority: jwt.activate,
    taintJWTAuthority: jwt.taint,
    revokeJWTAuthority: jwt.revoke,
    getWITAuthorityState: wit.state,
    prepareWITAuthority: wit.prepare,
    activateWITAuthority: wit.activate,
    taintWITAuthority: wit.taint,
    revokeWITAuthority: wit.revoke,
  })
}
