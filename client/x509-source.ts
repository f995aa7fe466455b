// A live view of the caller's X509-SVIDs and bundles, fed by the Workload API.
import { createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto'
import type { X509SVIDResponse } from '../proto/gen/spiffe/workload/workloadapi_pb.js'
import { type BundleSource, bundleOfDer, type X509Bundle } from '../spiffe/bundle.ts'
import { parseCertificate, type Serial, splitDer } from '../spiffe/certificate.ts'
import { IdentityError } from '../spiffe/errors.ts'
import {
  parseSpiffeId,
  parseTrustDomain,
  type SpiffeId,
  type TrustDomain,
  trustDomainOf,
} from '../spiffe/id.ts'
import type { Path } from '../spiffe/path.ts'
import { leafIdOf } from '../spiffe/svid.ts'
import type { Endpoint } from './endpoint.ts'
import type { Followed, SourceOptions } from './followed.ts'
import { type Revocation, revocationOf } from './revocation.ts'
import { followStream } from './stream.ts'

/** What TLS presents: never printed, its key is a KeyObject. */
export interface OwnSvid {
  readonly id: SpiffeId
  /** DER, leaf first */
  readonly chain: readonly Uint8Array[]
  readonly key: KeyObject
  readonly serial: Serial
  /** milliseconds since the epoch */
  readonly notAfter: number
  readonly hint: string
}

/** One complete answer of the Workload API: SVIDs, keys and bundles belong together. */
export interface X509Context {
  /** the first is the default identity; never empty */
  readonly svids: readonly [OwnSvid, ...OwnSvid[]]
  readonly bundles: BundleSource
}

/** Chooses one of several identities; undefined when none of them fits. */
export type SvidPicker = (svids: X509Context['svids']) => OwnSvid | undefined

/** The one that an operator has marked with `hint`. */
export const pickByHint =
  (hint: string): SvidPicker =>
  (svids) =>
    svids.find((svid) => svid.hint === hint)

export const pickById =
  (id: SpiffeId): SvidPicker =>
  (svids) =>
    svids.find((svid) => svid.id === id)

/** The newest context is `current()`; once the identity is gone, nothing is presented any more. */
export interface X509Source extends Followed<X509Context> {
  /** The default identity, or the one that `pick` chooses; undefined when there is none at present. */
  svid(pick?: SvidPicker): OwnSvid | undefined
  /** Of the own trust domain first, then of the federated ones: all that peers may come from. */
  bundles(): readonly X509Bundle[]
  /** CRLs, DER, of the authorities in the bundles; as they came, their signatures not verified */
  crls(): readonly Uint8Array[]
  /** Says which certificate of a verified path those lists revoke; undefined when none. */
  revoked(path: Path): string | undefined
}

function keyOf(id: SpiffeId, bytes: Uint8Array): KeyObject {
  try {
    return createPrivateKey({ key: Buffer.from(bytes), format: 'der', type: 'pkcs8' })
  } catch (cause) {
    throw new IdentityError('ERR_CERTIFICATE', `the key of ${id} is no PKCS#8`, { cause })
  }
}

function svidOf(message: X509SVIDResponse['svids'][number]): OwnSvid {
  const chain = splitDer(message.x509Svid)
  const [first] = chain
  if (first === undefined) throw new IdentityError('ERR_CERTIFICATE', 'an SVID without certificate')
  const leaf = parseCertificate(first)
  const id = parseSpiffeId(message.spiffeId)
  if (leafIdOf(leaf) !== id) {
    throw new IdentityError('ERR_CERTIFICATE', `the certificate of ${id} names ${leafIdOf(leaf)}`)
  }
  const key = keyOf(id, message.x509SvidKey)
  const spki = { key: Buffer.from(leaf.publicKey), format: 'der', type: 'spki' } as const
  if (!createPublicKey(key).equals(createPublicKey(spki))) {
    throw new IdentityError('ERR_CERTIFICATE', `the key of ${id} is not that of its certificate`)
  }
  return { id, chain, key, serial: leaf.serial, notAfter: leaf.notAfter, hint: message.hint }
}

/** What one response says. `bundles` can be counted, unlike those of its context. */
interface Answer {
  readonly context: X509Context
  readonly bundles: readonly X509Bundle[]
  readonly crls: readonly Uint8Array[]
  readonly revocation: Revocation
}

/** Reads one response whole; of several SVIDs with one hint the first counts (Workload API §5.2.1). */
function answerOf(response: X509SVIDResponse): Answer {
  const messages = response.svids.filter(
    ({ hint }, i, all) => hint === '' || all.findIndex((other) => other.hint === hint) === i,
  )
  const [first, ...rest] = messages.map(svidOf)
  if (first === undefined) throw new IdentityError('ERR_NO_IDENTITY', 'an answer without SVID')
  const bundles = new Map<TrustDomain, X509Bundle>()
  const put = (trustDomain: TrustDomain, der: Uint8Array) => {
    if (!bundles.has(trustDomain)) bundles.set(trustDomain, bundleOfDer(trustDomain, der))
  }
  // those of the own SVIDs first: a federated bundle never stands in for them
  for (const { spiffeId, bundle } of messages) put(trustDomainOf(parseSpiffeId(spiffeId)), bundle)
  for (const [name, der] of Object.entries(response.federatedBundles))
    put(parseTrustDomain(name), der)
  return {
    context: { svids: [first, ...rest], bundles: (trustDomain) => bundles.get(trustDomain) },
    bundles: [...bundles.values()],
    crls: response.crl,
    revocation: revocationOf(response.crl),
  }
}

/** Follows FetchX509SVID for as long as it lives; see `followStream` for what becomes of failures. */
export function startX509Source(endpoint: Endpoint, options: SourceOptions = {}): X509Source {
  const answers = followStream(
    endpoint,
    { open: (client, signal) => client.fetchX509SVID({}, signal), read: answerOf },
    options,
  )
  return {
    current: () => answers.current()?.context,
    ready: async (signal) => (await answers.ready(signal)).context,
    trouble: answers.trouble,
    subscribe: (listener) => answers.subscribe((answer) => listener(answer?.context)),
    svid: (pick = ([first]) => first) => {
      const context = answers.current()?.context
      return context && pick(context.svids)
    },
    bundles: () => answers.current()?.bundles ?? [],
    crls: () => answers.current()?.crls ?? [],
    revoked: (path) => answers.current()?.revocation(path),
    [Symbol.asyncDispose]: () => answers[Symbol.asyncDispose](),
  }
}
