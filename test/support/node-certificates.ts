// Certificates that nodes have before they join: an authority of nodes, and what it issues.
import 'reflect-metadata'
import { KeyObject, webcrypto } from 'node:crypto'
import * as x509 from '@peculiar/x509'

export interface NodeCertificate {
  readonly certificate: x509.X509Certificate
  readonly key: KeyObject
}

export const ec = { name: 'ECDSA', namedCurve: 'P-384', hash: 'SHA-384' } as const
export const rsa = {
  name: 'RSASSA-PKCS1-v1_5',
  hash: 'SHA-256',
  publicExponent: new Uint8Array([1, 0, 1]),
  modulusLength: 2048,
} as const
/** of a size that no node has */
export const hugeRsa = { ...rsa, modulusLength: 4104 } as const

export async function nodeIssuer(name: string) {
  const keys = await webcrypto.subtle.generateKey(ec, true, ['sign', 'verify'])
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: `CN=${name}`,
    keys,
    signingAlgorithm: ec,
    notBefore: new Date(Date.now() - 60_000),
    notAfter: new Date(Date.now() + 3_600_000),
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
    ],
  })
  return {
    certificate,
    async node(
      algorithm: typeof ec | typeof rsa | typeof hugeRsa,
      life = 3_600_000,
      name = 'node-7',
    ): Promise<NodeCertificate> {
      const own = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
      const made = await x509.X509CertificateGenerator.create({
        subject: `CN=${name}`,
        issuer: certificate.subject,
        publicKey: own.publicKey,
        signingKey: keys.privateKey,
        signingAlgorithm: ec,
        notBefore: new Date(Date.now() - 120_000),
        notAfter: new Date(Date.now() + life),
        extensions: [new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true)],
      })
      return { certificate: made, key: KeyObject.from(own.privateKey) }
    },
  }
}
