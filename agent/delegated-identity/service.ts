// SPIRE's Delegated Identity API on the admin socket: identities of other workloads, for the few that the
// configuration names by their own.
import { create, toBinary } from '@bufbuild/protobuf'
import {
  DelegatedIdentity,
  SubscribeToJWTBundlesResponseSchema,
  SubscribeToX509BundlesResponseSchema,
  SubscribeToX509SVIDsResponseSchema,
} from '../../proto/gen/spire/api/agent/delegatedidentity/v1/delegatedidentity_pb.js'
import type { Selector } from '../../proto/gen/spire/api/types/selector_pb.js'
import type { CallContext, Prepared, Service } from '../../runtime/grpc/service.ts'
import { service } from '../../runtime/grpc/service.ts'
import { bundleToDer } from '../../spiffe/bundle.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import { pathOf, type SpiffeId, trustDomainOf } from '../../spiffe/id.ts'
import type { Caller } from '../attest/caller.ts'
import { describedBy, type References } from '../attest/reference.ts'
import type { ReferredWorkload } from '../attest/referred-workload.ts'
import { type AgentEntry, ordinary } from '../entries.ts'
import type { Knowledge } from '../knowledge.ts'
import type { SvidCache, WorkloadSvid } from '../svid-cache.ts'
import { type Answer, type Entitled, hintsOf } from '../workload-api/entitled.ts'
import { badField, type JwtProfile, jwksOf } from '../workload-api/jwt.ts'

export interface DelegatedIdentityOptions {
  readonly knowledge: Knowledge
  readonly cache: SvidCache
  readonly entitled: Entitled
  readonly jwt: JwtProfile
  readonly references: References
  /** who may ask */
  readonly delegates: ReadonlySet<SpiffeId>
}

const mostSelectors = 256

function selectorsOf(selectors: readonly Selector[]): ReadonlySet<string> {
  if (selectors.length === 0) badField('selectors', 'is missing')
  if (selectors.length > mostSelectors) badField('selectors', `more than ${mostSelectors}`)
  return new Set(
    selectors.map(({ type, value }, i) =>
      type === '' || value === ''
        ? badField(`selectors[${i}]`, 'has no type or no value')
        : `${type}:${value}`,
    ),
  )
}

const idToWire = (id: SpiffeId) => ({ trustDomain: trustDomainOf(id), path: pathOf(id) })
const seconds = (at: number) => BigInt(Math.floor(at / 1000))

function svidToWire(svid: WorkloadSvid, hint: string) {
  return {
    x509Svid: {
      certChain: svid.certificates.map((der) => new Uint8Array(der)),
      id: idToWire(svid.id),
      expiresAt: seconds(svid.notAfter),
      hint,
    },
    x509SvidKey: svid.key,
  }
}

function answers({ knowledge, cache }: DelegatedIdentityOptions) {
  return {
    svids(entries: readonly AgentEntry[]): Answer {
      const mine = ordinary(entries)
      for (const entry of mine) if (!cache.svids.has(entry.id)) cache.want(entry)
      const svids = mine.flatMap(({ id }) => cache.svids.get(id) ?? [])
      const hints = hintsOf(mine)
      const federatesWith = [...new Set(mine.flatMap((it) => it.federatesWith))].sort()
      const encode = () => {
        const message = create(SubscribeToX509SVIDsResponseSchema, {
          x509Svids: svids.map((svid) => svidToWire(svid, hints.get(svid.entryId) ?? '')),
          federatesWith,
        })
        return toBinary(SubscribeToX509SVIDsResponseSchema, message)
      }
      const names = svids.map(({ entryId, serial }) => `${entryId}=${serial}=${hints.get(entryId)}`)
      return {
        version: `delegated ${names.join()} ${federatesWith.join()}`,
        encode,
      }
    },
    x509Bundles(): Answer {
      const all = [knowledge.own(), ...knowledge.federated().values()]
      const caCertificates = Object.fromEntries(
        all.map(({ x509 }) => [`spiffe://${x509.trustDomain}`, bundleToDer(x509)]),
      )
      const message = create(SubscribeToX509BundlesResponseSchema, { caCertificates })
      const bytes = toBinary(SubscribeToX509BundlesResponseSchema, message)
      return {
        version: `delegated x509 ${Buffer.from(bytes).toString('base64')}`,
        encode: () => bytes,
      }
    },
    jwtBundles(): Answer {
      const all = [knowledge.own(), ...knowledge.federated().values()]
      const bundles = Object.fromEntries(
        all.map(({ x509, jwt }) => [`spiffe://${x509.trustDomain}`, Buffer.from(jwksOf({ jwt }))]),
      )
      const message = create(SubscribeToJWTBundlesResponseSchema, { bundles })
      const bytes = toBinary(SubscribeToJWTBundlesResponseSchema, message)
      return {
        version: `delegated jwt ${Buffer.from(bytes).toString('base64')}`,
        encode: () => bytes,
      }
    },
  }
}

type Call = CallContext<Caller>

export function delegatedIdentityService(options: DelegatedIdentityOptions): Service<Caller> {
  const { entitled, jwt, references, delegates, knowledge } = options
  const answer = answers(options)

  async function authorize(call: Call): Promise<void> {
    const own = await entitled.entries(call)
    if (own.some(({ spiffeId }) => delegates.has(spiffeId))) return
    const names = own.map(({ spiffeId }) => spiffeId).join(', ')
    const message = `${names} may not ask for others: it is not among the delegates of agent.yaml`
    throw new IdentityError('ERR_DENIED', message)
  }

  async function* svids(call: Call, open: () => ReferredWorkload): AsyncGenerator<Prepared> {
    await authorize(call)
    await using workload = open()
    const how = { which: 'anyone', signal: call.signal } as const
    yield* entitled.followSubject(workload, how, answer.svids)
  }

  async function* bundles(call: Call, what: () => Answer): AsyncGenerator<Prepared> {
    await authorize(call)
    yield* entitled.follow(call, 'identified', what)
  }

  async function tokens(call: Call, audience: readonly string[], open: () => ReferredWorkload) {
    await authorize(call)
    await using workload = open()
    const { selectors } = await workload.attest()
    const entries = ordinary(knowledge.entriesFor(selectors))
    if (entries.length === 0) throw new IdentityError('ERR_NO_IDENTITY', 'no identity issued')
    const held = await jwt.tokens({ audience, spiffeId: '' }, entries)
    return {
      svids: held.map(({ entry, token, hint }) => ({
        token: token.token,
        id: idToWire(entry.spiffeId),
        expiresAt: seconds(token.expiresAt),
        issuedAt: seconds(token.receivedAt),
        hint,
      })),
    }
  }

  return service<typeof DelegatedIdentity, Caller>(DelegatedIdentity, {
    subscribeToX509SVIDs: ({ selectors }, call) =>
      svids(call, () => describedBy(selectorsOf(selectors))),
    subscribeToX509SVIDsByPID: ({ pid }, call) => svids(call, () => references.byPid(pid, 'pid')),
    subscribeToX509Bundles: (_, call) => bundles(call, answer.x509Bundles),
    subscribeToJWTBundles: (_, call) => bundles(call, answer.jwtBundles),
    fetchJWTSVIDs: ({ audience, selectors }, call) =>
      tokens(call, audience, () => describedBy(selectorsOf(selectors))),
    fetchJWTSVIDsByPID: ({ audience, pid }, call) =>
      tokens(call, audience, () => references.byPid(pid, 'pid')),
  })
}
