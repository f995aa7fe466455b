// X509-SVIDs and bundles as the command line shows them: everything but the keys.

import type { X509SVIDResponse } from '../proto/gen/spiffe/workload/workloadapi_pb.js'
import { bundleOfDer, type X509Bundle } from '../spiffe/bundle.ts'
import { fingerprintOf, parseCertificate, splitDer } from '../spiffe/certificate.ts'
import { IdentityError } from '../spiffe/errors.ts'
import { parseSpiffeId, parseTrustDomain, type TrustDomain, trustDomainOf } from '../spiffe/id.ts'
import { toPem } from '../spiffe/pem.ts'
import { table } from './context.ts'

const time = (at: number) => new Date(at).toISOString()

const spans = [
  ['day', 86_400_000],
  ['hour', 3_600_000],
  ['minute', 60_000],
  ['second', 1000],
] as const

/** `in 59 minutes`, `2 days ago`: in the largest unit of which there are two, for `at` and `now` in milliseconds. */
export function inWords(at: number, now: number): string {
  const distance = Math.abs(at - now)
  const [unit, size] = spans.find(([, ms]) => distance >= 2 * ms) ?? spans[3]
  const count = Math.floor(distance / size)
  const amount = `${count} ${unit}${count === 1 ? '' : 's'}`
  return at >= now ? `in ${amount}` : `${amount} ago`
}

function plainBundle({ trustDomain, authorities }: X509Bundle) {
  return {
    trustDomain,
    authorities: authorities.map((it) => ({
      pin: `sha256:${fingerprintOf(it.der)}`,
      expiresAt: time(it.notAfter),
      pem: toPem(it.der, 'CERTIFICATE'),
    })),
  }
}

function plainSvid({ spiffeId, x509Svid, hint }: X509SVIDResponse['svids'][number]) {
  const chain = splitDer(x509Svid)
  const [first] = chain
  if (first === undefined)
    throw new IdentityError('ERR_CERTIFICATE', `an SVID of ${spiffeId} without certificate`)
  const leaf = parseCertificate(first)
  return {
    ...{ spiffeId, hint, serial: leaf.serial },
    expiresAt: time(leaf.notAfter),
    chain: chain.map((der) => toPem(der, 'CERTIFICATE')),
  }
}

/** Of the own trust domains first; a federated bundle never stands in for one of those. */
function bundlesIn({ svids, federatedBundles }: X509SVIDResponse): X509Bundle[] {
  const bundles = new Map<TrustDomain, Uint8Array>()
  for (const { spiffeId, bundle } of svids)
    bundles.set(trustDomainOf(parseSpiffeId(spiffeId)), bundle)
  for (const [name, der] of Object.entries(federatedBundles)) {
    const trustDomain = parseTrustDomain(name)
    if (!bundles.has(trustDomain)) bundles.set(trustDomain, der)
  }
  return [...bundles].map(([name, der]) => bundleOfDer(name, der))
}

export function plainX509(response: X509SVIDResponse) {
  return {
    svids: response.svids.map(plainSvid),
    bundles: bundlesIn(response).map(plainBundle),
    crls: response.crl.length,
  }
}

export type PlainX509 = ReturnType<typeof plainX509>

export function x509Text({ svids, bundles }: PlainX509, now: number): string {
  const words = (at: string) => inWords(Date.parse(at), now)
  return [
    table([
      ['SPIFFE ID', 'HINT', 'SERIAL', 'EXPIRES'],
      ...svids.map((it) => [it.spiffeId, it.hint, it.serial, words(it.expiresAt)]),
    ]),
    '',
    table([
      ['BUNDLE', 'AUTHORITY', 'EXPIRES'],
      ...bundles.flatMap(({ trustDomain, authorities }) =>
        authorities.map(({ pin, expiresAt }) => [trustDomain, pin, words(expiresAt)]),
      ),
    ]),
  ].join('\n')
}
