// spire.api.server.localauthority.v1.LocalAuthority: an operator's hand on the rotation of each kind.
import { LocalAuthority } from '../../proto/gen/spire/api/server/localauthority/v1/localauthority_pb.js'
import { type CallContext, type Service, service } from '../../runtime/grpc/service.ts'
import type { Log } from '../../runtime/log.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import type { Slot, Slots } from '../authorities/slot.ts'
import type { Authority } from '../authority.ts'
import { nameOf, type Peer } from '../callers.ts'
import { permitFor } from '../permits.ts'
import type { AuthorityKind, AuthorityState } from '../store/model.ts'
import { secondsOf } from '../wire.ts'

const toWire = ({ id, notAfter }: Slot) => ({
  authorityId: id,
  expiresAt: secondsOf(notAfter),
})

/** The newest of this replica in a state: of old ones there may be several. */
function newest(slots: Slots<Slot>, state: AuthorityState) {
  const slot = slots.own().findLast((it) => it.state === state)
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

type Context = Pick<CallContext<Peer>, 'peer'>

interface Request {
  readonly authorityId: string
}

/** The four steps for one kind; each is logged with its outcome. */
function stepsOf(slots: Slots<Slot>, kind: AuthorityKind, { authority, log }: Parts) {
  const say = (what: string, slot: Slot) => {
    log.warn({ audit: true, kind, authorityId: slot.id }, `an operator ${what} an authority`)
    return toWire(slot)
  }
  const permit = (action: 'activate' | 'revoke', peer: Peer) =>
    permitFor(action, { kind, caller: nameOf(peer), forceReason: '' }, authority)
  return {
    state: () => stateOf(slots),
    prepare: async () => ({ preparedAuthority: say('prepared', await slots.prepare()) }),
    async activate({ authorityId }: Request, { peer }: Context) {
      const slot = await slots.activate(authorityId, permit('activate', peer))
      return { activatedAuthority: say('activated', slot) }
    },
    async taint({ authorityId }: Request) {
      return { taintedAuthority: say('tainted', await slots.taint(authorityId)) }
    },
    async revoke({ authorityId }: Request, { peer }: Context) {
      const slot = await slots.revoke(authorityId, permit('revoke', peer))
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
