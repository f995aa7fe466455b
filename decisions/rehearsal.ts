// Before policies are in force: the configuration that they are compiled for, and one decision with them.
import { destinationOf, type RawHttp } from '../policies/attributes/request.ts'
import { evaluateHttp, evaluateTcp } from '../policies/evaluate.ts'
import { type Backend, defaultMesh, type Mesh as MeshConfig } from '../policies/language/mesh.ts'
import { IdentityError } from '../spiffe/errors.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import { labelsIn } from './destination.ts'
import type { MeshState } from './mesh.ts'

/** Whose word of other addresses counts. */
export type Trusted = Pick<MeshConfig, 'trustedHops' | 'trustedProxies'>

/** Where requests arrive: the port of the workload, and how it reads paths. */
export interface Inbound {
  readonly port: number
  readonly backend: Backend | undefined
}

/** The same value again for the same mesh: what is compiled for it is kept by it. */
export function createMeshConfig({
  trustedHops,
  trustedProxies,
}: Trusted): (trustDomain: string, rootNamespace: string) => MeshConfig {
  let known: MeshConfig = { ...defaultMesh, trustedHops, trustedProxies }
  return (trustDomain, root) => {
    const rootNamespace = root === '' ? defaultMesh.rootNamespace : root
    if (known.trustDomain !== trustDomain || known.rootNamespace !== rootNamespace)
      known = { ...known, trustDomain, rootNamespace }
    return known
  }
}

const asked: RawHttp = { method: 'GET', target: '/', host: 'rehearsal', headers: [] }

/** Decides about a request and a connection at each port, as the first ones will be. Throws what goes wrong. */
export function rehearse(
  state: Pick<MeshState, 'policies' | 'labels'>,
  id: SpiffeId,
  { inbound, now }: { readonly inbound: readonly Inbound[]; readonly now: number },
): void {
  for (const { port, backend } of inbound) {
    const policies = state.policies.behind(backend)
    const destination = destinationOf(id, { port, labels: labelsIn(state, id) })
    const connected = { source: id, sourceIp: undefined, destination, sni: undefined }
    evaluateTcp(policies, connected)
    const { kind } = evaluateHttp(policies, connected, { raw: asked, now })
    if (kind !== 'decided')
      throw new IdentityError('ERR_POLICY', 'the rehearsal: a plain request is not decided')
  }
}
