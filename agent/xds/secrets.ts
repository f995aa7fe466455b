// Secrets by the names that Envoy's SDS and its users know: SVIDs with their keys, and whom to believe.
import { createPrivateKey, createPublicKey, hash } from 'node:crypto'
import { create, type MessageInitShape } from '@bufbuild/protobuf'
import { type Any, anyPack } from '@bufbuild/protobuf/wkt'
import { SecretSchema } from '../../proto/gen/envoy/extensions/transport_sockets/tls/v3/secret_pb.js'
import type { Clock } from '../../runtime/clock.ts'
import type { Log } from '../../runtime/log.ts'
import { parseCertificate } from '../../spiffe/certificate.ts'
import { chainToPem, toPem } from '../../spiffe/pem.ts'
import type { AgentEntry } from '../entries.ts'
import type { Knowledge } from '../knowledge.ts'
import type { SvidCache, WorkloadSvid } from '../svid-cache.ts'
import type { Trust } from '../trust.ts'
import { federatedWith } from '../workload-api/entitled.ts'
import { createBelieved } from './believed.ts'
import type { SdsConfig } from './config.ts'
import type { Offer, Resource, Wanted } from './resource.ts'
import { contextVersion, type Shape, validationContext } from './validation.ts'

export interface SecretsOptions {
  readonly knowledge: Knowledge
  readonly cache: Pick<SvidCache, 'svids' | 'want'>
  readonly config: SdsConfig
  readonly clock: Pick<Clock, 'now'>
  readonly log: Log
}

/** Who asks: its entries, the default identity first, and how it wants to be told whom to believe. */
export interface Asker {
  readonly entries: readonly AgentEntry[]
  readonly shape: Shape
}

/** What of `wanted` there is for who asks. */
export type OfferSecrets = (wanted: Wanted, asker: Asker) => Offer

type Found =
  | { readonly kind: 'found'; readonly resource: Resource; readonly until?: number | undefined }
  | { readonly kind: 'pending' }
  | { readonly kind: 'absent'; readonly reason: string }

const pending: Found = { kind: 'pending' }
const notYours: Found = { kind: 'absent', reason: 'no entry gives it to this process' }
const tooMany: Found = {
  kind: 'absent',
  reason: 'a plain list of CAs cannot keep trust domains apart',
}

type SecretType = NonNullable<MessageInitShape<typeof SecretSchema>['type']>

function packed(name: string, type: SecretType): Any {
  return anyPack(SecretSchema, create(SecretSchema, { name, type }))
}

const pemOf = (ders: readonly Uint8Array[]) => Buffer.from(chainToPem(ders))

function keyPairOf({ certificates, key }: WorkloadSvid, name: string): Any {
  const inline = (value: Uint8Array) => ({ specifier: { case: 'inlineBytes', value } as const })
  return packed(name, {
    case: 'tlsCertificate',
    value: {
      certificateChain: inline(pemOf(certificates)),
      privateKey: inline(Buffer.from(toPem(key, 'PRIVATE KEY'))),
    },
  })
}

/** Whether the key is that of the certificate: Envoy keeps what it has when a pair does not match. */
function isPair({ certificates: [leaf], key }: WorkloadSvid): boolean {
  if (leaf === undefined) return false
  const spki = Buffer.from(parseCertificate(leaf).publicKey)
  const own = createPrivateKey({ key: Buffer.from(key), format: 'der', type: 'pkcs8' })
  return createPublicKey({ key: spki, format: 'der', type: 'spki' }).equals(createPublicKey(own))
}

/** The version of an SVID, or undefined when it is not to be handed out; found out once for each. */
function createVersions(log: Log): (svid: WorkloadSvid) => string | undefined {
  const known = new WeakMap<WorkloadSvid, string>()
  return (svid) => {
    const found = known.get(svid)
    if (found !== undefined) return found === '' ? undefined : found
    const version = isPair(svid) ? hash('sha256', svid.chain, 'base64url').slice(0, 22) : ''
    if (version === '')
      log.error({ spiffeId: svid.id, serial: svid.serial }, 'the key is not that of the SVID')
    known.set(svid, version)
    return version === '' ? undefined : version
  }
}

const firstOf = (times: readonly (number | undefined)[]): { readonly until?: number } => {
  const all = times.filter((it) => it !== undefined)
  return all.length === 0 ? {} : { until: Math.min(...all) }
}

export function createSecrets(options: SecretsOptions): OfferSecrets {
  const { knowledge, cache, config, log } = options
  const versionOf = createVersions(log)
  const believed = createBelieved(options)

  function certificate(name: string, entry: AgentEntry | undefined): Found {
    if (entry === undefined) return notYours
    const svid = cache.svids.get(entry.id)
    if (svid === undefined) cache.want(entry)
    const version = svid && versionOf(svid)
    if (svid === undefined || version === undefined) return pending
    return { kind: 'found', resource: { name, version, pack: () => keyPairOf(svid, name) } }
  }

  function context(name: string, shape: Shape, trusts: readonly Trust[]): Found {
    const { all, until } = believed(trusts)
    if (all.length === 0) return pending
    if (all.length > 1 && shape === 'plain') return tooMany
    const version = contextVersion(shape, all)
    const value = () => validationContext(shape, all)
    const pack = () => packed(name, { case: 'validationContext', value: value() })
    return { kind: 'found', resource: { name, version, pack }, until }
  }

  function find(name: string, { entries, shape }: Asker): Found {
    const own = knowledge.own()
    const federated = federatedWith(entries, knowledge).map(([, trust]) => trust)
    switch (name) {
      case config.defaultSvidName:
        return certificate(name, entries[0])
      case config.defaultBundleName:
        return context(name, shape, [own])
      case config.defaultAllBundlesName:
        return context(name, shape, [own, ...federated])
    }
    const trust = [own, ...federated].find(({ x509 }) => name === `spiffe://${x509.trustDomain}`)
    if (trust !== undefined) return context(name, shape, [trust])
    return certificate(
      name,
      entries.find(({ spiffeId }) => spiffeId === name),
    )
  }

  /** By their own names: who asks for everything has no use for the same again under another. */
  function namesOf(entries: readonly AgentEntry[]): string[] {
    const domains = [knowledge.own(), ...federatedWith(entries, knowledge).map(([, it]) => it)]
    return [
      ...entries.map(({ spiffeId }) => spiffeId),
      ...domains.map(({ x509 }) => `spiffe://${x509.trustDomain}`),
    ]
  }

  return ({ names, everything }, asker) => {
    const all = new Set([...(everything ? namesOf(asker.entries) : []), ...names])
    const found = [...all].map((name) => [name, find(name, asker)] as const)
    const resources = new Map<string, Resource>()
    const absent = new Map<string, string>()
    for (const [name, it] of found) {
      if (it.kind === 'found') resources.set(name, it.resource)
      if (it.kind === 'absent') absent.set(name, it.reason)
    }
    return {
      ...{ resources, absent },
      pending: new Set(found.filter(([, it]) => it.kind === 'pending').map(([name]) => name)),
      ...firstOf(found.map(([, it]) => (it.kind === 'found' ? it.until : undefined))),
    }
  }
}
