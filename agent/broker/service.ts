// The SPIFFE Broker API (incubating): a broker that the configuration names gets identities of workloads that
// it refers to, by mutual TLS.

import { create, type DescMessage, type MessageShape } from '@bufbuild/protobuf'
import { type Any, anyPack, anyUnpack } from '@bufbuild/protobuf/wkt'
import { ErrorInfoSchema } from '../../proto/gen/google/rpc/error_details_pb.js'
import {
  API,
  KubernetesObjectReferenceSchema,
  WorkloadPIDReferenceSchema,
  type WorkloadReference,
} from '../../proto/gen/spiffe/broker/api_pb.js'
import type { CallContext, Prepared, Service } from '../../runtime/grpc/service.ts'
import { service } from '../../runtime/grpc/service.ts'
import { type ErrorCode, IdentityError } from '../../spiffe/errors.ts'
import type { SpiffeId } from '../../spiffe/id.ts'
import type { References } from '../attest/reference.ts'
import type { ReferredWorkload } from '../attest/referred-workload.ts'
import { type AgentEntry, ordinary } from '../entries.ts'
import type { Serving } from '../serving.ts'
import type { Answer } from '../workload-api/entitled.ts'
import { badField } from '../workload-api/jwt.ts'
import { podReferenceOf } from './pod-reference.ts'

/** A broker, by its verified certificate. */
export interface BrokerPeer {
  readonly id: SpiffeId
}

type Call = CallContext<BrokerPeer>

export interface BrokerOptions extends Pick<Serving, 'entitled' | 'x509' | 'jwt'> {
  readonly references: References
  readonly brokers: ReadonlySet<SpiffeId>
  /** a reference to a process means nothing to who is on another machine */
  readonly isLocal: boolean
}

const header = 'broker.spiffe.io'

/** The header first, then who asks: the table of brokers allows, nothing else does (§4.1). */
export function authorizeBroker(brokers: ReadonlySet<SpiffeId>) {
  return ({ method, metadata, peer }: Call): void => {
    if (method.parent.typeName !== API.typeName) return
    const values = metadata.get(header) ?? []
    if (values.length !== 1 || values[0] !== 'true') {
      const message = `security header missing from request: ${header} has to be true`
      throw new IdentityError('ERR_BAD_REQUEST', message)
    }
    if (!brokers.has(peer.id))
      throw new IdentityError('ERR_DENIED', `${peer.id} is not among the brokers of agent.yaml`)
  }
}

const reasons: Readonly<Partial<Record<ErrorCode, string>>> = {
  ERR_NOT_FOUND: 'WORKLOAD_NOT_FOUND',
  ERR_NO_IDENTITY: 'WORKLOAD_NOT_ENTITLED',
}

/** The ErrorInfo that the standard names (§4.8). */
export function brokerDetails(error: IdentityError): Any[] {
  const isReference = error.fields.some(({ field }) => field.startsWith('reference'))
  const reason = isReference ? 'WORKLOAD_REFERENCE_INVALID' : reasons[error.code]
  if (reason === undefined) return []
  return [anyPack(ErrorInfoSchema, create(ErrorInfoSchema, { reason, domain: 'spiffe.io' }))]
}

async function workloadOf(
  reference: WorkloadReference | undefined,
  { references, isLocal }: BrokerOptions,
): Promise<ReferredWorkload> {
  const any = reference?.reference
  if (any === undefined || any.typeUrl === '') return badField('reference', 'is missing')
  const object = unpacked(any, KubernetesObjectReferenceSchema)
  if (object !== undefined) {
    const { byPod } = references
    if (byPod === undefined)
      return badField('reference', 'is to a Kubernetes object; agent.yaml names no kubelet to ask')
    return await byPod(podReferenceOf(object))
  }
  const process = unpacked(any, WorkloadPIDReferenceSchema)
  if (process === undefined) return badField('reference', `is of an unknown type, ${any.typeUrl}`)
  if (!isLocal) badField('reference', 'is to a process, but was asked for over the network')
  return references.byPid(process.pid, 'reference.pid')
}

function unpacked<S extends DescMessage>(any: Any, schema: S): MessageShape<S> | undefined {
  try {
    return anyUnpack(any, schema)
  } catch {
    return badField('reference', 'cannot be read')
  }
}

/** Those of a workload's entries that a broker may have. Throws ERR_NO_IDENTITY when there are none. */
function givable(entries: readonly AgentEntry[]): readonly AgentEntry[] {
  const mine = ordinary(entries)
  if (mine.length > 0) return mine
  throw new IdentityError('ERR_NO_IDENTITY', 'no identity issued')
}

export function brokerService(options: BrokerOptions): Service<BrokerPeer> {
  const { entitled, x509, jwt } = options

  async function* follow(
    call: Call,
    reference: WorkloadReference | undefined,
    answer: (entries: readonly AgentEntry[]) => Answer | undefined,
  ): AsyncGenerator<Prepared> {
    await using workload = await workloadOf(reference, options)
    const how = { which: 'identified', signal: call.signal } as const
    yield* entitled.followSubject(workload, how, (entries) => answer(givable(entries)))
  }

  // field for field the answers of the Workload API
  return service<typeof API, BrokerPeer>(API, {
    subscribeToX509SVID: ({ reference }, call) => follow(call, reference, x509.svids),
    subscribeToX509Bundles: ({ reference }, call) => follow(call, reference, x509.bundles),
    subscribeToJWTBundles: ({ reference }, call) => follow(call, reference, jwt.bundles),
    async fetchJWTSVID({ reference, audience, spiffeId }) {
      await using workload = await workloadOf(reference, options)
      const entries = givable(await entitled.entriesOf(workload))
      return await jwt.svids({ audience, spiffeId }, entries)
    },
  })
}
