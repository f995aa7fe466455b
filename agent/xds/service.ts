// Envoy's SecretDiscoveryService: the attested process at the socket gets the secrets of its entries.
import type { Node } from '../../proto/gen/envoy/config/core/v3/base_pb.js'
import { SecretSchema } from '../../proto/gen/envoy/extensions/transport_sockets/tls/v3/secret_pb.js'
import { SecretDiscoveryService } from '../../proto/gen/envoy/service/secret/v3/sds_pb.js'
import type { Status } from '../../proto/gen/google/rpc/status_pb.js'
import type { Clock } from '../../runtime/clock.ts'
import { type Service, service } from '../../runtime/grpc/service.ts'
import type { Log } from '../../runtime/log.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import type { Caller } from '../attest/caller.ts'
import type { Audience } from '../audience.ts'
import type { AgentConfig } from '../config.ts'
import type { Knowledge } from '../knowledge.ts'
import type { SvidCache } from '../svid-cache.ts'
import { type Call, createEntitled, type Entitled } from '../workload-api/entitled.ts'
import { converse, type OneType, ofOneType, watchEntries } from './converse.ts'
import { delta } from './delta.ts'
import { createPushes, type Watching } from './pushes.ts'
import { type Offer, versionOf, type Wanted } from './resource.ts'
import { type Asker, createSecrets, type OfferSecrets } from './secrets.ts'
import { stateOfTheWorld } from './state-of-the-world.ts'
import type { Shape } from './validation.ts'

export interface SdsOptions extends Watching {
  readonly knowledge: Knowledge
  readonly cache: Pick<SvidCache, 'svids' | 'want' | 'onChange'>
  readonly config: Pick<AgentConfig, 'sds'>
  readonly audience: Pick<Audience, 'follow'>
  readonly clock: Clock
  readonly log: Log
}

const typeUrl = `type.googleapis.com/${SecretSchema.typeName}`
/** characters of what a client says, and names of its, that a log line takes */
const longest = 500
const mostTold = 20

interface Request {
  readonly typeUrl: string
  readonly node?: Node | undefined
}

/** Only the form of what it gets: nothing that a client says of itself decides what that is. */
export function shapeOf(node: Node | undefined, { plainCa }: AgentConfig['sds']): Shape {
  const asked = node?.metadata?.disable_spiffe_cert_validation
  const isAsked = asked === true || (typeof asked === 'string' && /^(1|t|true)$/i.test(asked))
  return plainCa || isAsked ? 'plain' : 'spiffe'
}

function demandType({ typeUrl: asked }: Request): void {
  if (asked === '' || asked === typeUrl) return
  throw new IdentityError('ERR_BAD_REQUEST', `type_url: there are only secrets here`, {
    fields: [{ field: 'type_url', problem: `is not ${typeUrl}` }],
  })
}

interface Told {
  refused(reason: Status): void
  absent(offer: Offer): void
}

/** For a person: what a proxy refused; what it waits for in vain, once until it has come. */
function createTold(log: Log, { peer, method }: Call, node: () => Node | undefined): Told {
  let known: ReadonlySet<string> = new Set()
  const who = () => ({
    ...{ pid: peer.process.pid, uid: peer.process.uid, method: method.name },
    // a claim
    nodeId: node()?.id.slice(0, longest),
  })
  return {
    refused({ code, message }) {
      log.warn({ ...who(), code, reason: message.slice(0, longest) }, 'a proxy refused its secrets')
    },
    absent({ absent }) {
      const news = [...absent].filter(([name]) => !known.has(name)).slice(0, mostTold)
      known = new Set(absent.keys())
      if (news.length === 0) return
      const names = news.map(([name, reason]) => `${name.slice(0, longest)}: ${reason}`)
      log.warn({ ...who(), names }, 'a proxy asks for secrets that are not for it')
    },
  }
}

function refuseAbsent({ absent }: Offer): never {
  const names = [...absent.keys()].sort().map((name) => JSON.stringify(name))
  const reasons = [...new Set(absent.values())]
  throw new IdentityError(
    'ERR_DENIED',
    `workload is not authorized for the requested identities [${names.join(' ')}]: ${reasons.join(', ')}`,
  )
}

/** Whether a call that is answered once is to be answered now. */
function isReady({ everything }: Wanted, { resources, pending }: Offer, { entries }: Asker) {
  if (!everything) return pending.size === 0
  return entries.some(({ spiffeId }) => resources.has(spiffeId))
}

/** The first offer that is worth an answer. Rejects when something that was named is not for who asks. */
async function offerOnce(
  wanted: Wanted,
  call: Call,
  { offer, follow, shape }: Pick<Entitled, 'follow'> & { offer: OfferSecrets; shape: Shape },
): Promise<Offer> {
  const stop = new AbortController()
  const signal = AbortSignal.any([call.signal, stop.signal])
  const { promise, resolve, reject } = Promise.withResolvers<Offer>()
  const look = (entries: Asker['entries']) => {
    const asker = { entries, shape }
    const now = offer(wanted, asker)
    if (now.absent.size > 0) refuseAbsent(now)
    if (isReady(wanted, now, asker)) resolve(now)
  }
  watchEntries(follow, { ...call, signal }, look).catch(reject)
  try {
    return await promise
  } finally {
    stop.abort()
  }
}

export function secretService(options: SdsOptions): Service<Caller> {
  const {
    knowledge,
    cache,
    audience,
    clock,
    log,
    config: { sds },
  } = options
  const { follow } = createEntitled({ knowledge, clock, audience, onChange: cache.onChange })
  const offer = createSecrets({ ...{ knowledge, cache, clock, log }, config: sds })

  /** What both variants have in common, for one stream. */
  function stream(call: Call): Omit<OneType<Request, never>, 'protocol'> {
    let node: Node | undefined
    const told = createTold(log, call, () => node)
    return {
      refused: told.refused,
      pushes: createPushes('sds', call.peer.process.pid, options),
      inspect(request) {
        demandType(request)
        // the first request alone is sure to have it
        node ??= request.node
      },
      offer(wanted, entries) {
        const now = offer(wanted, { entries, shape: shapeOf(node, sds) })
        told.absent(now)
        return now
      },
    }
  }

  return service<typeof SecretDiscoveryService, Caller>(SecretDiscoveryService, {
    streamSecrets: (requests, call) =>
      converse(requests, call, {
        ...ofOneType({ ...stream(call), protocol: stateOfTheWorld(typeUrl) }),
        ...{ follow, audience, clock },
      }),
    deltaSecrets: (requests, call) =>
      converse(requests, call, {
        ...ofOneType({ ...stream(call), protocol: delta(typeUrl) }),
        ...{ follow, audience, clock },
      }),
    async fetchSecrets(request, call) {
      demandType(request)
      const protocol = stateOfTheWorld(typeUrl)
      protocol.hear(request)
      const wanted = protocol.wanted() ?? { names: new Set(), everything: true }
      const shape = shapeOf(request.node, sds)
      const found = await offerOnce(wanted, call, { offer, follow, shape })
      const resources = [...found.resources.values()].map(({ pack }) => pack())
      return { versionInfo: versionOf(found), resources, typeUrl }
    },
  })
}
