// A throw-away CA and a certificate for localhost, made for one test run.
import 'reflect-metadata'
import { webcrypto } from 'node:crypto'
import * as x509 from '@peculiar/x509'

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const
const hour = 3_600_000

export interface TestTls {
  readonly ca: string
  readonly cert: string
  readonly key: string
}

async function pem(key: webcrypto.CryptoKey): Promise<string> {
  return x509.PemConverter.encode(await webcrypto.subtle.exportKey('pkcs8', key), 'PRIVATE KEY')
}

export async function makeTestTls(name = 'localhost'): Promise<TestTls> {
  x509.cryptoProvider.set(webcrypto)
  const dates = { notBefore: new Date(Date.now() - hour), notAfter: new Date(Date.now() + hour) }
  const generate = () => webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
  const [caKeys, keys] = await Promise.all([generate(), generate()])
  const ca = await x509.X509CertificateGenerator.createSelfSigned({
    ...dates,
    name: `CN=test CA of ${name}`,
    keys: caKeys,
    signingAlgorithm: algorithm,
    extensions: [new x509.BasicConstraintsExtension(true, undefined, true)],
  })
  const leaf = await x509.X509CertificateGenerator.create({
    ...dates,
    subject: `CN=${name}`,
    issuer: ca.subject,
    publicKey: keys.publicKey,
    signingKey: caKeys.privateKey,
    signingAlgorithm: algorithm,
    extensions: [
      new x509.SubjectAlternativeNameExtension([
        { type: 'dns', value: name },
        { type: 'ip', value: '127.0.0.1' },
      ]),
    ],
  })
  return { ca: ca.toString('pem'), cert: leaf.toString('pem'), key: await pem(keys.privateKey) }
}
