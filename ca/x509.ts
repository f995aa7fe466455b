// The one file that touches @peculiar/x509: it makes CA certificates, which are few, and is the second
// opinion on samples of our leaves.
import 'reflect-metadata'
import { createPrivateKey, type KeyObject, randomBytes, webcrypto } from 'node:crypto'
import * as x509 from '@peculiar/x509'
import type { Serial } from '../spiffe/certificate.ts'
import { keyIdOf } from '../spiffe/key-id.ts'

x509.cryptoProvider.set(webcrypto)

const curve = { name: 'ECDSA', namedCurve: 'P-256' } as const
const signing = { ...curve, hash: 'SHA-256' } as const

export interface NewAuthority {
  readonly certificate: Uint8Array
  readonly key: KeyObject
}

export interface AuthorityOptions {
  readonly trustDomain: string
  /** milliseconds since the epoch */
  readonly notBefore: number
  readonly notAfter: number
}

/** A positive serial of 127 random bits, as hex. */
function randomSerial(): string {
  const bytes = randomBytes(16)
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40
  return bytes.toString('hex')
}

function authorityExtensions(trustDomain: string, spki: Uint8Array, pathLength: number) {
  const usages = x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign
  return [
    new x509.BasicConstraintsExtension(true, pathLength, true),
    new x509.KeyUsagesExtension(usages, true),
    new x509.SubjectKeyIdentifierExtension(keyIdOf(spki).toString('hex')),
    new x509.SubjectAlternativeNameExtension([{ type: 'url', value: `spiffe://${trustDomain}` }]),
  ]
}

export interface DownstreamOptions extends AuthorityOptions {
  readonly serial: Serial
  /** SubjectPublicKeyInfo of the new authority, DER */
  readonly publicKey: Uint8Array
  readonly issuer: { readonly material: Uint8Array; readonly keyId: Uint8Array; key: KeyObject }
}

/** The certificate of an authority below another one: the same, and no further CA below it. */
export async function createDownstream(options: DownstreamOptions): Promise<Uint8Array> {
  const { trustDomain, publicKey, serial, issuer } = options
  const above = new x509.X509Certificate(Buffer.from(issuer.material))
  const pkcs8 = issuer.key.export({ format: 'der', type: 'pkcs8' })
  const signingKey = await webcrypto.subtle.importKey('pkcs8', pkcs8, curve, false, ['sign'])
  pkcs8.fill(0)
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: serial,
    subject: [{ O: ['SPIFFE'] }, { CN: [trustDomain.slice(0, 64)] }, { '2.5.4.5': [serial] }],
    issuer: above.subjectName,
    notBefore: new Date(options.notBefore),
    notAfter: new Date(options.notAfter),
    publicKey: new x509.PublicKey(Buffer.from(publicKey)),
    signingAlgorithm: signing,
    signingKey,
    extensions: [
      ...authorityExtensions(trustDomain, publicKey, 0),
      new x509.AuthorityKeyIdentifierExtension(Buffer.from(issuer.keyId).toString('hex')),
    ],
  })
  return new Uint8Array(certificate.rawData)
}

/**
 * A self-signed authority with a new P-256 key: the SPIFFE ID of the trust domain (no path), CA with one
 * more below it at most, keyCertSign and cRLSign only (X509-SVID §3.2, §4).
 */
export async function createAuthority(options: AuthorityOptions): Promise<NewAuthority> {
  const { trustDomain, notBefore, notAfter } = options
  const keys = await webcrypto.subtle.generateKey(curve, true, ['sign', 'verify'])
  const spki = Buffer.from(await webcrypto.subtle.exportKey('spki', keys.publicKey))
  const serialNumber = randomSerial()
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber,
    // the serial makes the subject differ between authorities of one trust domain
    name: [{ O: ['SPIFFE'] }, { CN: [trustDomain.slice(0, 64)] }, { '2.5.4.5': [serialNumber] }],
    notBefore: new Date(notBefore),
    notAfter: new Date(notAfter),
    signingAlgorithm: signing,
    keys,
    extensions: authorityExtensions(trustDomain, spki, 1),
  })
  const pkcs8 = await webcrypto.subtle.exportKey('pkcs8', keys.privateKey)
  const key = createPrivateKey({ key: Buffer.from(pkcs8), format: 'der', type: 'pkcs8' })
  return { certificate: new Uint8Array(certificate.rawData), key }
}

/** What an unrelated parser makes of a leaf; used on samples, it costs 30 times an issuance. */
export function secondOpinion(leaf: Uint8Array): { uris: readonly string[]; isCa: boolean } {
  const parsed = new x509.X509Certificate(Buffer.from(leaf))
  const names = parsed.getExtension(x509.SubjectAlternativeNameExtension)
  return {
    uris: names?.names.items.filter((name) => name.type === 'url').map((name) => name.value) ?? [],
    isCa: parsed.getExtension(x509.BasicConstraintsExtension)?.ca ?? false,
  }
}
