// A client of SDS by hand: says what it is told to say, and reads one response at a time.
import { createPrivateKey, type KeyObject } from 'node:crypto'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { type Any, anyUnpack } from '@bufbuild/protobuf/wkt'
import { createClient, type Transport } from '@connectrpc/connect'
import type { CertificateValidationContext } from '../../../proto/gen/envoy/extensions/transport_sockets/tls/v3/common_pb.js'
import {
  type Secret,
  SecretSchema,
} from '../../../proto/gen/envoy/extensions/transport_sockets/tls/v3/secret_pb.js'
import { SPIFFECertValidatorConfigSchema } from '../../../proto/gen/envoy/extensions/transport_sockets/tls/v3/tls_spiffe_validator_config_pb.js'
import type {
  DeltaDiscoveryRequestSchema,
  DeltaDiscoveryResponse,
  DiscoveryRequestSchema,
  DiscoveryResponse,
} from '../../../proto/gen/envoy/service/discovery/v3/discovery_pb.js'
import { SecretDiscoveryService } from '../../../proto/gen/envoy/service/secret/v3/sds_pb.js'
import { parsePem } from '../../../spiffe/pem.ts'

export const typeUrl = `type.googleapis.com/${SecretSchema.typeName}`

export interface Talk<Request, Response> extends Disposable {
  send(request: Request): void
  /** Rejects with the status that ends the stream. */
  next(): Promise<Response>
}

function talk<Request, Response>(
  open: (requests: AsyncIterable<Request>, signal: AbortSignal) => AsyncIterable<Response>,
): Talk<Request, Response> {
  const stop = new AbortController()
  const waiting: Request[] = []
  let wake = Promise.withResolvers<void>()
  async function* requests() {
    while (true) {
      for (let one = waiting.shift(); one !== undefined; one = waiting.shift()) yield one
      await wake.promise
      wake = Promise.withResolvers()
    }
  }
  const signal = AbortSignal.any([stop.signal, AbortSignal.timeout(90_000)])
  const responses = open(requests(), signal)[Symbol.asyncIterator]()
  return {
    send(request) {
      waiting.push(request)
      wake.resolve()
    },
    async next() {
      const { value, done } = await responses.next()
      if (done === true) throw new Error('the stream ended')
      return value
    },
    [Symbol.dispose]: () => stop.abort(),
  }
}

type SotwRequest = MessageInitShape<typeof DiscoveryRequestSchema>
type DeltaRequest = MessageInitShape<typeof DeltaDiscoveryRequestSchema>

export function streamSecrets(transport: Transport): Talk<SotwRequest, DiscoveryResponse> {
  const client = createClient(SecretDiscoveryService, transport)
  return talk((requests, signal) => client.streamSecrets(requests, { signal }))
}

export function deltaSecrets(transport: Transport): Talk<DeltaRequest, DeltaDiscoveryResponse> {
  const client = createClient(SecretDiscoveryService, transport)
  return talk((requests, signal) => client.deltaSecrets(requests, { signal }))
}

export function secretOf(any: Any | undefined): Secret {
  const secret = any && anyUnpack(any, SecretSchema)
  if (secret === undefined) throw new Error('no secret')
  return secret
}

export interface KeyPair {
  /** DER, leaf first */
  readonly chain: readonly Uint8Array[]
  readonly key: KeyObject
}

interface Source {
  readonly specifier: { readonly case: string | undefined; readonly value?: unknown }
}

function inlined(source: Source | undefined): string {
  const { case: kind, value } = source?.specifier ?? { case: undefined }
  if (kind !== 'inlineBytes' || !(value instanceof Uint8Array)) throw new Error('not inline')
  return Buffer.from(value).toString()
}

export function keyPairOf({ name, type }: Secret): KeyPair {
  if (type.case !== 'tlsCertificate') throw new Error(`${name} is no certificate`)
  const { certificateChain, privateKey } = type.value
  return {
    chain: parsePem(inlined(certificateChain), 'CERTIFICATE', name),
    key: createPrivateKey(inlined(privateKey)),
  }
}

export function contextOf({ name, type }: Secret): CertificateValidationContext {
  if (type.case !== 'validationContext') throw new Error(`${name} is no validation context`)
  return type.value
}

/** PEM by trust domain, as the SPIFFE validator gets it. */
export function domainsOf(secret: Secret): Readonly<Record<string, string>> {
  const { customValidatorConfig, trustedCa } = contextOf(secret)
  if (trustedCa !== undefined) throw new Error('a plain CA beside the validator')
  if (customValidatorConfig?.name !== 'envoy.tls.cert_validator.spiffe')
    throw new Error('no validator')
  const { typedConfig } = customValidatorConfig
  const config = typedConfig && anyUnpack(typedConfig, SPIFFECertValidatorConfigSchema)
  if (config === undefined) throw new Error('no configuration')
  return Object.fromEntries(config.trustDomains.map((it) => [it.name, inlined(it.trustBundle)]))
}

export interface PlainContext {
  readonly ca: string
  readonly crl: string
  readonly isLeafOnly: boolean
}

export function plainOf(secret: Secret): PlainContext {
  const context = contextOf(secret)
  if (context.customValidatorConfig !== undefined)
    throw new Error('a validator beside the plain CA')
  return {
    ca: inlined(context.trustedCa),
    crl: context.crl === undefined ? '' : inlined(context.crl),
    isLeafOnly: context.onlyVerifyLeafCertCrl,
  }
}
