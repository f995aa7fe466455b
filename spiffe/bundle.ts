// Trust bundles: the roots of one trust domain, never of two (Bundle §3, Federation §7.3).
import { type Certificate, fingerprintOf, parseCertificate, splitDer } from './certificate.ts'
import { IdentityError } from './errors.ts'
import type { TrustDomain } from './id.ts'
import { parsePem, toPem } from './pem.ts'

export interface X509Bundle {
  readonly trustDomain: TrustDomain
  readonly authorities: readonly Certificate[]
}

/** Finds the bundle of a trust domain; undefined when the domain is not trusted. */
export type BundleSource = (trustDomain: TrustDomain) => X509Bundle | undefined

export function bundleOf(trustDomain: TrustDomain, ders: readonly Uint8Array[]): X509Bundle {
  const authorities = ders.map(parseCertificate)
  for (const authority of authorities) {
    if (!authority.isCa) {
      throw new IdentityError(
        'ERR_CERTIFICATE',
        `bundle of ${trustDomain}: certificate ${fingerprintOf(authority.der)} is no CA`,
      )
    }
  }
  return { trustDomain, authorities }
}

/** Concatenated DER, as the Workload API carries bundles. */
export function bundleOfDer(trustDomain: TrustDomain, bytes: Uint8Array): X509Bundle {
  return bundleOf(trustDomain, splitDer(bytes))
}

/** `source` names the text in errors, for instance a file. */
export function bundleOfPem(trustDomain: TrustDomain, text: string, source: string): X509Bundle {
  return bundleOf(trustDomain, parsePem(text, 'CERTIFICATE', source))
}

export function bundleToDer(bundle: X509Bundle): Buffer {
  return Buffer.concat(bundle.authorities.map((authority) => authority.der))
}

export function bundleToPem(bundle: X509Bundle): string {
  return bundle.authorities.map((authority) => toPem(authority.der, 'CERTIFICATE')).join('')
}

export function bundleSourceOf(...bundles: readonly X509Bundle[]): BundleSource {
  const byName = new Map(bundles.map((bundle) => [bundle.trustDomain, bundle]))
  return (trustDomain) => byName.get(trustDomain)
}
