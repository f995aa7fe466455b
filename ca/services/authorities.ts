// castellan.authority.v1.Authorities: the state of the rotation for people, and the way over its gates.

import type { ChangeRequest } from '../../proto/gen/castellan/authority/v1/authorities_pb.js'
import { Authorities } from '../../proto/gen/castellan/authority/v1/authorities_pb.js'
import { type Service, service } from '../../runtime/grpc/service.ts'
import type { Log } from '../../runtime/log.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import { phaseOf, type Slot, type Slots } from '../authorities/slot.ts'
import type { Authority } from '../authority.ts'
import { nameOf, type Peer } from '../callers.ts'
import { permitFor } from '../permits.ts'
import type { AuthorityKind, LiveCertificate } from '../store/model.ts'
import { badRequest, printableReason, secondsOf } from '../wire.ts'

const shownOverrides = 20

function readKind(kind: string): AuthorityKind {
  if (kind === 'x509' || kind === 'jwt' || kind === 'wit') return kind
  return badRequest([{ field: 'kind', problem: 'is none of x509, jwt and wit' }])
}

/** When the first, the middle and the last of the workloads lose their identity. */
function outlookOf(live: readonly LiveCertificate[]) {
  const ends = live
    .filter(({ isWorkload }) => isWorkload)
    .map(({ notAfter }) => notAfter)
    .sort((a, b) => a - b)
  const at = (place: number) => secondsOf(ends[place] ?? 0)
  return {
    holders: BigInt(ends.length),
    firstFailsAt: at(0),
    halfFailedAt: at(Math.max(0, Math.ceil(ends.length / 2) - 1)),
    lastFailsAt: at(ends.length - 1),
  }
}

export function authoritiesService(authority: Authority, log: Log): Service<Peer> {
  const { acknowledgements, authorities, clock, store } = authority
  const { jwt, wit } = authorities
  const slotsOf: Readonly<Record<AuthorityKind, Slots<Slot>>> = { x509: authorities, jwt, wit }

  function toWire(slot: Slot, live: readonly LiveCertificate[]) {
    return {
      kind: slot.kind,
      id: slot.id,
      replica: slot.replica,
      phase: phaseOf(slot),
      expiresAt: secondsOf(slot.notAfter),
      live: BigInt(live.filter(({ authorityId }) => authorityId === slot.id).length),
    }
  }

  async function change(action: 'activate' | 'revoke', request: ChangeRequest, peer: Peer) {
    const kind = readKind(request.kind)
    const forceReason = printableReason(request.forceReason, 'force_reason')
    const caller = nameOf(peer)
    const permit = permitFor(action, { kind, caller, forceReason }, authority)
    const slot = await slotsOf[kind][action](request.authorityId, permit)
    const fields = { audit: true, kind, authorityId: slot.id, caller, action }
    log.warn(
      { ...fields, ...(forceReason === '' ? {} : { forceReason }) },
      'an operator changed an authority',
    )
    return toWire(slot, await store.issuance.live(clock.now()))
  }

  return service<typeof Authorities, Peer>(Authorities, {
    async getStatus() {
      const live = await store.issuance.live(clock.now())
      const laggards = await acknowledgements.laggards(authorities.sequence)
      const overrides = await store.authorities.overrides(shownOverrides)
      const since = secondsOf(authorities.publishedAt)
      return {
        authorities: Object.values(slotsOf).flatMap((slots) =>
          slots.all().map((slot) => toWire(slot, live)),
        ),
        laggards: laggards.map(({ agentId, heardAt }) => ({
          agentId,
          since,
          heardAt: secondsOf(heardAt),
        })),
        connectedAgents: BigInt((await acknowledgements.connected()).length),
        replicas: [...(await acknowledgements.replicas())],
        outlook: outlookOf(live),
        overrides: overrides.map((it) => ({ ...it, at: secondsOf(it.at) })),
      }
    },
    async retire({ replica }, { peer }) {
      if ((await acknowledgements.replicas()).includes(replica)) {
        const message = `replica ${replica} is alive, or was a minute ago; stop it first`
        throw new IdentityError('ERR_PRECONDITION', message)
      }
      // names in brackets are no replicas': what was appended or published is tainted by its ID
      const isOfReplica = authorities.all().some((it) => it.replica === replica)
      if (!isOfReplica || !/^[\w.-]+$/.test(replica)) {
        const message = `no authority of a replica ${JSON.stringify(replica.slice(0, 80))}; castellan authority status names them`
        throw new IdentityError('ERR_NOT_FOUND', message)
      }
      await authorities.retire(replica)
      await store.replicas.forget(replica)
      log.warn({ audit: true, replica, caller: nameOf(peer) }, 'an operator retired a replica')
      return {}
    },
    activate: (request, { peer }) => change('activate', request, peer),
    revoke: (request, { peer }) => change('revoke', request, peer),
  })
}
