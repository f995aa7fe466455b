// What the checks look at: an agent's socket, what it served at the beginning, and who may change that.
import { type Client, Code, ConnectError, createClient, type Transport } from '@connectrpc/connect'
import { openTransport, securityHeader } from '../../../client/transport.ts'
import {
  type JWTBundlesResponse,
  type JWTSVIDResponse,
  SpiffeWorkloadAPI,
  type WITBundlesResponse,
  type WITSVIDResponse,
  type X509BundlesResponse,
  type X509SVIDResponse,
} from '../../../proto/gen/spiffe/workload/workloadapi_pb.js'
import { parseSpiffeId, type TrustDomain, trustDomainOf } from '../../../spiffe/id.ts'
import { eventually } from '../../interop/eventually.ts'
import { first, type Maybe, patience } from './check.ts'
import type { Foreign } from './foreign.ts'
import type { Operator } from './operator.ts'

export interface Wit {
  readonly svids: WITSVIDResponse
  readonly bundles: WITBundlesResponse
}

export interface Served {
  readonly x509: X509SVIDResponse
  readonly x509Bundles: X509BundlesResponse
  readonly jwt: JWTSVIDResponse
  readonly jwtBundles: JWTBundlesResponse
  readonly wit: Maybe<Wit>
}

export type WorkloadApi = Client<typeof SpiffeWorkloadAPI>

/** The other side of the agent, as far as this run has it. */
export interface Backstage {
  readonly operator: Maybe<Operator>
  readonly foreign: Maybe<Foreign>
  /** entries that were made for this run */
  readonly entries: readonly string[]
}

export interface Scene extends Backstage, Disposable {
  readonly socket: string
  readonly transport: Transport
  readonly client: WorkloadApi
  readonly trustDomain: TrustDomain
  readonly served: Served
}

/** of every JWT-SVID in `served` */
export const servedAudience = 'conformance'

async function witOf(client: WorkloadApi): Promise<Maybe<Wit>> {
  try {
    const svids = await first(client.fetchWITSVID({}, { signal: patience() }))
    const bundles = await first(client.fetchWITBundles({}, { signal: patience() }))
    return { kind: 'there', it: { svids, bundles } }
  } catch (error) {
    if (ConnectError.from(error).code !== Code.Unimplemented) throw error
    return { kind: 'missing', reason: 'the agent does not serve the WIT profile' }
  }
}

async function servedBy(client: WorkloadApi): Promise<Served> {
  const signal = patience()
  return {
    x509: await first(client.fetchX509SVID({}, { signal })),
    x509Bundles: await first(client.fetchX509Bundles({}, { signal })),
    jwt: await client.fetchJWTSVID({ audience: [servedAudience] }, { signal }),
    jwtBundles: await first(client.fetchJWTBundles({}, { signal })),
    wit: await witOf(client),
  }
}

/** Rejects with PermissionDenied when nothing is registered for this process. */
export async function openScene(socket: string, backstage: Backstage): Promise<Scene> {
  const options = { interceptors: [securityHeader] }
  using opening = new DisposableStack()
  const { transport } = opening.use(openTransport({ kind: 'unix', path: socket }, options))
  const client = createClient(SpiffeWorkloadAPI, transport)
  const served = await servedBy(client)
  const trustDomain = trustDomainOf(parseSpiffeId(served.x509.svids[0]?.spiffeId ?? ''))
  const opened = opening.move()
  return {
    ...{ socket, transport, client, trustDomain, served, ...backstage },
    [Symbol.dispose]: () => opened.dispose(),
  }
}

/** Resolves once the agent serves `svids` identities and the bundles of `others`. */
export async function untilServed(socket: string, svids: number, others: readonly string[]) {
  const options = { interceptors: [securityHeader] }
  using opened = openTransport({ kind: 'unix', path: socket }, options)
  const client = createClient(SpiffeWorkloadAPI, opened.transport)
  // an agent that starts, or has not heard of the entries yet, refuses
  await eventually('the new entries', async () => {
    for await (const message of client.fetchX509SVID({}, { signal: patience() })) {
      const known = others.every((name) => `spiffe://${name}` in message.federatedBundles)
      if (message.svids.length === svids && known) return
    }
    throw new Error('the stream ended')
  })
}
