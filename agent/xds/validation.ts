// Whom a proxy shall believe, as Envoy's validation contexts: by trust domain, or as a plain list of CAs.
import { hash } from 'node:crypto'
import { create, type MessageInitShape } from '@bufbuild/protobuf'
import { anyPack } from '@bufbuild/protobuf/wkt'
import type { CertificateValidationContextSchema } from '../../proto/gen/envoy/extensions/transport_sockets/tls/v3/common_pb.js'
import { SPIFFECertValidatorConfigSchema } from '../../proto/gen/envoy/extensions/transport_sockets/tls/v3/tls_spiffe_validator_config_pb.js'
import { bundleToPem } from '../../spiffe/bundle.ts'
import { toPem } from '../../spiffe/pem.ts'
import type { Trust } from '../trust.ts'
import type { CrlSet } from './crls.ts'

/** How a proxy is told whom to believe. */
export type Shape = 'spiffe' | 'plain'

/** The roots of one trust domain, and the lists that go along. */
export interface Believed {
  readonly trust: Trust
  readonly crls: CrlSet
}

export type ValidationContext = MessageInitShape<typeof CertificateValidationContextSchema>

const inline = (value: string) => ({
  specifier: { case: 'inlineBytes', value: Buffer.from(value) } as const,
})
const crlPem = ({ crls }: CrlSet) => crls.map((der) => toPem(der, 'X509 CRL')).join('')

/** Each trust domain by its own roots; Envoy reads the lists from beside them. */
function spiffe(all: readonly Believed[]): ValidationContext {
  const trustDomains = all.map(({ trust, crls }) => ({
    name: trust.x509.trustDomain,
    trustBundle: inline(bundleToPem(trust.x509) + crlPem(crls)),
  }))
  const config = create(SPIFFECertValidatorConfigSchema, { trustDomains })
  return {
    customValidatorConfig: {
      name: 'envoy.tls.cert_validator.spiffe',
      typedConfig: anyPack(SPIFFECertValidatorConfigSchema, config),
    },
  }
}

/** Of one trust domain: in one pool a federated CA could make identities of ours. */
function plain([one]: readonly Believed[]): ValidationContext {
  if (one === undefined) return {}
  const trustedCa = inline(bundleToPem(one.trust.x509))
  if (one.crls.crls.length === 0) return { trustedCa }
  // or a list of every issuer above were asked for as well
  return { trustedCa, crl: inline(crlPem(one.crls)), onlyVerifyLeafCertCrl: true }
}

const writers = { spiffe, plain } as const

export function validationContext(shape: Shape, all: readonly Believed[]): ValidationContext {
  return writers[shape](all)
}

/** Another one for another context, and for that only. */
export function contextVersion(shape: Shape, all: readonly Believed[]): string {
  const parts = all.flatMap(({ trust: { x509 }, crls: { crls } }) => [
    Buffer.from(`\n${x509.trustDomain} ${x509.authorities.length} ${crls.length}\n`),
    ...x509.authorities.map(({ der }) => der),
    ...crls,
  ])
  return hash('sha256', Buffer.concat([Buffer.from(shape), ...parts]), 'base64url').slice(0, 22)
}
