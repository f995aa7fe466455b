// What the agent says, put to use: read, compiled, decided with once for rehearsal, and only then in force. Of
// a state that cannot be used nothing is taken but the deny-list.
import { denyListOf } from '../client/deny-list.ts'
import type { Issuers } from '../client/issuers.ts'
import type { Mesh, MeshState } from '../decisions/mesh.ts'
import { createPolicySets } from '../decisions/policy-sets.ts'
import { type Inbound, rehearse, type Trusted } from '../decisions/rehearsal.ts'
import { defaultMesh } from '../policies/language/mesh.ts'
import { jwksUrisOf } from '../policies/language/read.ts'
import type { SidecarState } from '../proto/gen/castellan/workload/v1/sidecar_pb.js'
import type { Clock } from '../runtime/clock.ts'
import { type Address, address } from '../runtime/config.ts'
import type { Log } from '../runtime/log.ts'
import { explain, IdentityError } from '../spiffe/errors.ts'
import { parseSpiffeId, trustDomainOf } from '../spiffe/id.ts'
import type { Identities } from './identity.ts'
import type { Report } from './reports.ts'

export interface StateOptions {
  readonly mesh: Mesh
  readonly identities: Pick<Identities, 'current'>
  readonly issuers: Pick<Issuers, 'source' | 'follow'>
  readonly inbound: readonly Inbound[]
  readonly trusted: Trusted
  readonly log: Log
  readonly clock: Clock
}

function addressOf(text: string, service: string): Address {
  const result = address.safeParse(text)
  if (result.success) return result.data
  const shown = JSON.stringify(text)
  throw new IdentityError('ERR_BAD_REQUEST', `endpoint ${service}: ${shown} is no address`)
}

const endpointsOf = ({ endpoints }: SidecarState): MeshState['endpoints'] =>
  new Map(
    endpoints.map(({ service, addresses, spiffeIds }) => [
      service,
      addresses.map((text, i) => {
        const id = spiffeIds[i] ?? ''
        return { ...addressOf(text, service), id: id === '' ? undefined : parseSpiffeId(id) }
      }),
    ]),
  )

/** What is denied is denied, whatever else of the state cannot be used. */
function keepDenying({ denyList }: SidecarState, mesh: Mesh): void {
  try {
    mesh.put({ ...mesh.current(), denyList: denyListOf(denyList) })
  } catch {
    // the list itself is what cannot be read: the former one stays with the rest
  }
}

/** Puts one state after the other to use; the report acknowledges it, or says why not. */
export function createStateTaker(options: StateOptions): (state: SidecarState) => Report {
  const { mesh, identities, issuers, inbound, clock, log } = options
  const setOf = createPolicySets({ trusted: options.trusted, jwks: issuers.source, clock })

  /** Throws ERR_POLICY or ERR_BAD_REQUEST when a part of it cannot be used: then no part is. */
  function meshStateOf(state: SidecarState): MeshState {
    const { policies, denyList, labels } = state
    const id = identities.current()?.svid.id
    const trustDomain = id === undefined ? defaultMesh.trustDomain : trustDomainOf(id)
    return {
      policies: setOf(policies, trustDomain),
      endpoints: endpointsOf(state),
      denyList: denyListOf(denyList),
      labels: new Map(labels.map((it) => [parseSpiffeId(it.spiffeId), it.labels])),
    }
  }

  return (state) => {
    const { version } = state
    try {
      const next = meshStateOf(state)
      const id = identities.current()?.svid.id
      if (id !== undefined) rehearse(next, id, { inbound, now: clock.now() })
      issuers.follow(jwksUrisOf(next.policies.documents))
      mesh.put(next)
      log.info({ version: String(version) }, 'policies in force')
      return { report: { case: 'ack', value: { version } } }
    } catch (error) {
      log.error({ version: String(version), err: error }, 'policies refused, the former stay')
      keepDenying(state, mesh)
      return { report: { case: 'ack', value: { version, refusal: explain(error) } } }
    }
  }
}
