// The certificates of the corpus, with the key of their leaves: for verifiers and for handshakes.
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { z } from 'zod'
import { bundleOfPem, type X509Bundle } from '../../spiffe/bundle.ts'
import { parseTrustDomain } from '../../spiffe/id.ts'
import { parsePem } from '../../spiffe/pem.ts'

export const certificatesFolder = new URL('../vectors/corpus-certs/', import.meta.url)
const read = (file: string) => readFileSync(new URL(file, certificatesFolder), 'utf8')

const manifest = z
  .strictObject({
    role: z.literal('client'),
    key: z.strictObject({ curve: z.literal('P-256'), scalar: z.string() }),
    certificates: z.array(
      z.strictObject({
        row: z.number(),
        file: z.string(),
        bundles: z.record(z.string(), z.string()),
        expect: z.enum(['accept', 'reject']),
        reason: z.string(),
      }),
    ),
  })
  .parse(JSON.parse(read('manifest.json')))

/** By any of the leaves, which have the same. */
export function leafKey(): KeyObject {
  const { publicKey } = new X509Certificate(read('good.pem'))
  const { x = '', y = '' } = publicKey.export({ format: 'jwk' })
  const d = Buffer.from(manifest.key.scalar, 'hex').toString('base64url')
  return createPrivateKey({ key: { kty: 'EC', crv: 'P-256', x, y, d }, format: 'jwk' })
}

export interface CorpusCertificate {
  readonly file: string
  /** leaf first */
  readonly chain: readonly Uint8Array[]
  readonly bundles: readonly X509Bundle[]
  readonly expect: 'accept' | 'reject'
  readonly reason: string
}

export const corpusCertificates: readonly CorpusCertificate[] = manifest.certificates.map(
  ({ file, bundles, expect, reason }) => ({
    ...{ file, expect, reason },
    chain: parsePem(read(file), 'CERTIFICATE', file),
    bundles: Object.entries(bundles).map(([name, roots]) =>
      bundleOfPem(parseTrustDomain(name), read(roots), roots),
    ),
  }),
)

/** Of all that the manifest names. */
export const corpusCertificateFiles: ReadonlySet<string> = new Set(
  manifest.certificates.flatMap(({ file, bundles }) => [file, ...Object.values(bundles)]),
)
