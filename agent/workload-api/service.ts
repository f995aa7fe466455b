// SpiffeWorkloadAPI: who asks is attested, what it gets follows from its entries.
import { SpiffeWorkloadAPI } from '../../proto/gen/spiffe/workload/workloadapi_pb.js'
import type { CallContext, Implementation, Service } from '../../runtime/grpc/service.ts'
import { service } from '../../runtime/grpc/service.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import type { Caller } from '../attest/caller.ts'
import type { AgentConfig } from '../config.ts'
import type { Serving } from '../serving.ts'
import type { Call } from './entitled.ts'

export interface WorkloadApiOptions extends Pick<Serving, 'entitled' | 'x509' | 'jwt' | 'wit'> {
  readonly config: Pick<AgentConfig, 'incubating' | 'verifiersWithoutIdentity'>
}

/** Missing, doubled, or anything but `true` is refused (Workload Endpoint §6). */
export function demandSecurityHeader({ method, metadata }: CallContext<Caller>): void {
  if (method.parent.typeName !== 'SpiffeWorkloadAPI') return
  const values = metadata.get('workload.spiffe.io') ?? []
  if (values.length !== 1 || values[0] !== 'true') {
    throw new IdentityError(
      'ERR_BAD_REQUEST',
      'security header missing from request: workload.spiffe.io has to be true',
    )
  }
}

export function workloadApiService(options: WorkloadApiOptions): Service<Caller> {
  const { entitled, x509, jwt, wit, config } = options
  const { entries, entriesOrNone, follow } = entitled
  const verifiers = config.verifiersWithoutIdentity ? 'anyone' : 'identified'
  const ofVerifier = (call: Call) => (verifiers === 'anyone' ? entriesOrNone(call) : entries(call))
  const incubating: Implementation<typeof SpiffeWorkloadAPI, Caller> = {
    fetchWITSVID: ({ spiffeId }, call) =>
      follow(call, 'identified', (mine) => wit.svids(spiffeId, mine)),
    fetchWITBundles: (_, call) => follow(call, verifiers, wit.bundles),
  }
  return service<typeof SpiffeWorkloadAPI, Caller>(SpiffeWorkloadAPI, {
    fetchX509SVID: (_, call) => follow(call, 'identified', x509.svids),
    fetchX509Bundles: (_, call) => follow(call, verifiers, x509.bundles),
    fetchJWTSVID: async (request, call) => jwt.svids(request, await entries(call)),
    fetchJWTBundles: (_, call) => follow(call, verifiers, jwt.bundles),
    validateJWTSVID: async (request, call) => jwt.validate(request, await ofVerifier(call)),
    ...(config.incubating ? incubating : {}),
  })
}
