// Envoy's AggregatedDiscoveryService: one stream for everything that a proxy of this node, or a program that needs
// none, is.
import type { Node } from '../../proto/gen/envoy/config/core/v3/base_pb.js'
import { AggregatedDiscoveryService } from '../../proto/gen/envoy/service/discovery/v3/ads_pb.js'
import type { Status } from '../../proto/gen/google/rpc/status_pb.js'
import { type Service, service } from '../../runtime/grpc/service.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import type { Caller } from '../attest/caller.ts'
import { argumentsOf } from '../attest/proc.ts'
import type { AgentEntry } from '../entries.ts'
import type { Driven } from '../proxies/driven.ts'
import { drainRemarks } from '../proxies/envoy/drain.ts'
import {
  type Form,
  type Kind,
  kinds,
  type ProxyLedger,
  type ProxyRecord,
  stateIn,
} from '../proxies/ledger.ts'
import type { Session } from '../session.ts'
import type { Call } from '../workload-api/entitled.ts'
import { createEntitled } from '../workload-api/entitled.ts'
import { type Answers, type Conversation, converse, type Protocol } from './converse.ts'
import { delta } from './delta.ts'
import { createPushes, type Pushes } from './pushes.ts'
import { earliest } from './resource.ts'
import { createSecrets, type OfferSecrets } from './secrets.ts'
import { type SdsOptions, shapeOf } from './service.ts'
import type { Told } from './snapshot-answers.ts'
import { stateOfTheWorld } from './state-of-the-world.ts'
import { createTelling } from './telling.ts'

export interface AdsOptions extends SdsOptions {
  readonly driven: Driven
  readonly proxies: ProxyLedger
  readonly session: Pick<Session, 'untilHeard'>
}

const prefix = 'type.googleapis.com/'
const typeUrls: Readonly<Record<Kind, string>> = {
  clusters: `${prefix}envoy.config.cluster.v3.Cluster`,
  endpoints: `${prefix}envoy.config.endpoint.v3.ClusterLoadAssignment`,
  listeners: `${prefix}envoy.config.listener.v3.Listener`,
  routes: `${prefix}envoy.config.route.v3.RouteConfiguration`,
  secrets: `${prefix}envoy.extensions.transport_sockets.tls.v3.Secret`,
}
const kindOf = new Map(kinds.map((kind) => [typeUrls[kind], kind]))

/** characters of what a client says */
const longest = 500

interface Request {
  readonly typeUrl: string
  readonly node?: Node | undefined
  readonly errorDetail?: Status | undefined
}

const formOf = (node: Node | undefined): Form =>
  node?.userAgentName.startsWith('gRPC') === true ? 'grpc' : 'envoy'

interface Variant<Req, Res> {
  readonly protocol: (typeUrl: string) => Protocol<Req, Res>
  readonly versionOf: (response: Res) => string
}

interface Streaming {
  readonly record: ProxyRecord
  readonly options: AdsOptions
  readonly secrets: OfferSecrets
  readonly pushes: Pushes
  /** what its start lets a person expect of an Envoy */
  readonly started: readonly string[]
}

function createStream<Req extends Request, Res>(
  { protocol: make, versionOf }: Variant<Req, Res>,
  { record, options, secrets, pushes, started }: Streaming,
): Pick<Conversation<Req, Res>, 'hear' | 'answer'> {
  const { config, driven, proxies, clock, log } = options
  const protocols = new Map<Kind, Protocol<Req, Res>>()
  const told: Told<Req, Res> = { protocols, clusters: new Map() }
  let node: Node | undefined
  const telling = createTelling({ driven, record, told, note, started, clock })

  function hear(request: Req): void {
    const kind = kindOf.get(request.typeUrl)
    if (kind === undefined) refuseType(request.typeUrl)
    // the first request alone is sure to have it
    node ??= request.node
    record.node = (node?.id ?? '').slice(0, longest)
    record.form = formOf(node)
    const protocol = protocols.get(kind) ?? make(typeUrls[kind])
    protocols.set(kind, protocol)
    const wasSettled = protocol.isSettled()
    const refusal = protocol.hear(request)
    const state = stateIn(record, kind)
    if (refusal !== undefined) {
      state.refusal = refusal.message.slice(0, longest)
      pushes.refused(kind)
      log.error(
        { pid: record.pid, nodeId: record.node, kind, reason: state.refusal },
        'a proxy refused its configuration',
      )
    } else if (!wasSettled && protocol.isSettled()) {
      state.taken = state.told
      state.refusal = ''
      pushes.taken(kind)
    }
    telling.settle()
    proxies.tell()
  }

  function note(kind: Kind, response: Res): Res {
    const state = stateIn(record, kind)
    state.told = versionOf(response)
    pushes.sent(kind)
    return response
  }

  function tellSecrets(entries: readonly AgentEntry[]): Answers<Res> {
    const protocol = protocols.get('secrets')
    const wanted = protocol?.wanted()
    if (protocol === undefined || wanted === undefined) return { responses: [] }
    const offer = secrets(wanted, { entries, shape: shapeOf(node, config.sds) })
    const response = protocol.tell(offer)
    return {
      responses: response === undefined ? [] : [note('secrets', response)],
      until: offer.until,
    }
  }

  function answer(entries: readonly AgentEntry[]): Answers<Res> {
    const all = [telling.of(entries), tellSecrets(entries)]
    const isNews = all.some(({ responses }) => responses.length > 0)
    const cut = isNews ? undefined : telling.cut(entries)
    if (cut !== undefined) all.push(cut)
    proxies.tell()
    return {
      responses: all.flatMap(({ responses }) => responses),
      until: earliest(...all.map(({ until }) => until)),
    }
  }
  return { hear, answer }
}

export function aggregatedService(options: AdsOptions): Service<Caller> {
  const { knowledge, cache, audience, clock, log, config, driven, proxies, session } = options
  const { follow } = createEntitled({ knowledge, clock, audience, onChange: cache.onChange })
  const secrets = createSecrets({ ...{ knowledge, cache, clock, log }, config: config.sds })

  async function* serve<Req extends Request, Res>(
    requests: AsyncIterable<Req>,
    call: Call,
    variant: Variant<Req, Res>,
  ): AsyncGenerator<Res> {
    const record = proxies.open(call.peer.process)
    const pushes = createPushes('ads', record.pid, options)
    const started = drainRemarks(await argumentsOf(record.pid, clock))
    try {
      // it has what an earlier process told it, and the disk may have less
      await session.untilHeard(call.signal)
      yield* converse(requests, call, {
        ...createStream(variant, { record, options, secrets, pushes, started }),
        ...{ follow, audience, clock, pushes, onChange: driven.onChange },
      })
    } finally {
      proxies.close(record)
    }
  }

  return service<typeof AggregatedDiscoveryService, Caller>(AggregatedDiscoveryService, {
    streamAggregatedResources: (requests, call) =>
      serve(requests, call, {
        protocol: stateOfTheWorld,
        versionOf: ({ versionInfo = '' }) => versionInfo,
      }),
    deltaAggregatedResources: (requests, call) =>
      serve(requests, call, {
        protocol: delta,
        versionOf: ({ systemVersionInfo = '' }) => systemVersionInfo,
      }),
  })
}

function refuseType(typeUrl: string): never {
  throw new IdentityError(
    'ERR_BAD_REQUEST',
    `type_url: ${JSON.stringify(typeUrl.slice(0, longest))} is not served here`,
    {
      fields: [{ field: 'type_url', problem: `is none of ${[...kindOf.keys()].join(', ')}` }],
    },
  )
}
