// A live view of the caller's X509-SVIDs and bundles, fed by the Workload API.
import { createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto'
import { Code, ConnectError, createClient } from '@connectrpc/connect'
import {
  SpiffeWorkloadAPI,
  type X509SVIDResponse,
} from '../proto/gen/spiffe/workload/workloadapi_pb.js'
import { createBackoff } from '../runtime/backoff.ts'
import { type Clock, systemClock } from '../runtime/clock.ts'
import { createTopic, run } from '../runtime/lifecycle.ts'
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
import { leafIdOf } from '../spiffe/svid.ts'
import type { Endpoint } from './endpoint.ts'
import { openTransport, securityHeader } from './transport.ts'

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

export interface X509Source extends AsyncDisposable {
  /** The newest context. Once the identity is gone it is `lost`, and nothing is presented any more. */
  current(): X509Context | undefined
  /** Resolves with the first context; rejects when the signal is aborted first. */
  ready(signal: AbortSignal): Promise<X509Context>
  /** Called after each change; undefined when the identity was withdrawn. */
  subscribe(listener: (context: X509Context | undefined) => void): Disposable
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

/** Reads one response whole; of several SVIDs with one hint the first counts (Workload API §5.2.1). */
export function contextOf(response: X509SVIDResponse): X509Context {
  const messages = response.svids.filter(
    ({ hint }, i, all) => hint === '' || all.findIndex((other) => other.hint === hint) === i,
  )
  const [first, ...rest] = messages.map(svidOf)
  if (first === undefined) throw new IdentityError('ERR_NO_IDENTITY', 'an answer without SVID')
  const bundles = new Map<TrustDomain, X509Bundle>()
  for (const [name, der] of Object.entries(response.federatedBundles)) {
    const trustDomain = parseTrustDomain(name)
    bundles.set(trustDomain, bundleOfDer(trustDomain, der))
  }
  for (const message of messages) {
    const trustDomain = trustDomainOf(parseSpiffeId(message.spiffeId))
    bundles.set(trustDomain, bundleOfDer(trustDomain, message.bundle))
  }
  return { svids: [first, ...rest], bundles: (trustDomain) => bundles.get(trustDomain) }
}

export interface SourceOptions {
  readonly clock?: Clock
  /** told of each failed attempt; the source goes on trying */
  readonly onTrouble?: (error: unknown) => void
}

const final: ReadonlySet<Code> = new Set([Code.InvalidArgument, Code.Unimplemented])

/**
 * Follows FetchX509SVID for as long as it lives, with backoff between attempts. The last good context is
 * kept while the endpoint is away and dropped when it answers PermissionDenied (Workload API §5.2.1).
 */
export function startX509Source(endpoint: Endpoint, options: SourceOptions = {}): X509Source {
  const { clock = systemClock, onTrouble = () => {} } = options
  const topic = createTopic<X509Context | undefined>()
  const first = Promise.withResolvers<X509Context>()
  first.promise.catch(() => {})
  let current: X509Context | undefined

  function publish(context: X509Context | undefined): void {
    current = context
    if (context !== undefined) first.resolve(context)
    topic.publish(context)
  }

  async function follow(signal: AbortSignal, backoff: { reset(): void }): Promise<void> {
    using local = openTransport(endpoint, { interceptors: [securityHeader] })
    const client = createClient(SpiffeWorkloadAPI, local.transport)
    for await (const response of client.fetchX509SVID({}, { signal })) {
      publish(contextOf(response))
      backoff.reset()
    }
  }

  const loop = run(async (signal) => {
    const backoff = createBackoff({ first: 50, cap: 2000 })
    while (!signal.aborted) {
      try {
        await follow(signal, backoff)
      } catch (error) {
        if (signal.aborted) return
        const code = error instanceof ConnectError ? error.code : undefined
        if (code === Code.PermissionDenied && current !== undefined) publish(undefined)
        onTrouble(error)
        if (code !== undefined && final.has(code)) {
          first.reject(error)
          return
        }
      }
      await clock.sleep(backoff.next(), { signal })
    }
  })

  return {
    current: () => current,
    ready: (signal) => untilAborted(first.promise, signal),
    subscribe: (listener) => topic.subscribe(listener),
    [Symbol.asyncDispose]: () => loop[Symbol.asyncDispose](),
  }
}

/** `promise`, unless the signal is aborted first. */
async function untilAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  const aborted = Promise.withResolvers<never>()
  const abort = () => aborted.reject(signal.reason)
  signal.throwIfAborted()
  signal.addEventListener('abort', abort, { once: true })
  try {
    return await Promise.race([promise, aborted.promise])
  } finally {
    signal.removeEventListener('abort', abort)
  }
}
