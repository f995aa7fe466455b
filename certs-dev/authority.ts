// A development CA in memory: authorities that issue authorities and leaves, without asking any question.
import { generateKeyPairSync, type KeyObject, type KeyPairKeyObjectResult } from 'node:crypto'
import { keyUsages } from '../spiffe/certificate.ts'
import { clientAuth, serverAuth } from '../spiffe/svid.ts'
import {
  type CertificateFields,
  commonName,
  type SignatureAlgorithm,
  writeCertificate,
} from './certificate.ts'
import {
  authorityKeyIdentifier,
  basicConstraints,
  extendedKeyUsage,
  generalName,
  keyUsage,
  subjectAltName,
  subjectKeyIdentifier,
} from './extensions.ts'

/** By any name; one of the same name replaces the usual one, null leaves it out. */
export type Extensions = Readonly<Record<string, Uint8Array | null>>

/** What both an authority and a leaf may say differently from the usual. */
export interface Choices {
  /** milliseconds since the epoch */
  readonly notBefore: number
  readonly notAfter: number
  readonly subject?: Uint8Array
  readonly keys?: KeyPairKeyObjectResult
  readonly extensions?: Extensions
  readonly serial?: Uint8Array
  readonly version?: number
  readonly algorithm?: SignatureAlgorithm
  /** instead of the issuer's own */
  readonly issuer?: Uint8Array
  readonly signingKey?: KeyObject
}

export interface DevCa {
  readonly subject: Uint8Array
  readonly certificate: Buffer
  readonly privateKey: KeyObject
  readonly publicKey: KeyObject
  /** itself, then its issuers, without the root; empty for a root */
  readonly chain: readonly Buffer[]
}

export interface DevLeaf {
  /** leaf first, without the root */
  readonly chain: readonly Buffer[]
  readonly privateKey: KeyObject
}

/** P-256. */
export const newKeys = (): KeyPairKeyObjectResult =>
  generateKeyPairSync('ec', { namedCurve: 'prime256v1' })

type Named = Pick<DevCa, 'subject' | 'privateKey' | 'publicKey'>
type Usual = Pick<CertificateFields, 'subject' | 'publicKey'> & { readonly extensions: Extensions }

function signedBy(issuer: Named, usual: Usual, choices: Choices): Buffer {
  const { keys: _, extensions, ...fields } = choices
  const chosen = Object.values({ ...usual.extensions, ...extensions })
  return writeCertificate({
    issuer: issuer.subject,
    signingKey: issuer.privateKey,
    ...usual,
    ...fields,
    extensions: chosen.filter((it) => it !== null),
  })
}

export interface CaChoices extends Choices {
  readonly name: string
  /** a root when left out */
  readonly parent?: DevCa
  readonly pathLength?: number
}

export function makeDevCa(choices: CaChoices): DevCa {
  const {
    name,
    parent,
    pathLength,
    subject = commonName(name),
    keys = newKeys(),
    ...rest
  } = choices
  const { privateKey, publicKey } = keys
  const issuer = parent ?? { subject, privateKey, publicKey }
  const extensions = {
    basicConstraints: basicConstraints(pathLength),
    keyUsage: keyUsage([keyUsages.keyCertSign, keyUsages.cRLSign]),
    subjectKeyIdentifier: subjectKeyIdentifier(publicKey),
    authorityKeyIdentifier: authorityKeyIdentifier(issuer.publicKey),
  }
  const certificate = signedBy(issuer, { subject, publicKey, extensions }, rest)
  const chain = parent === undefined ? [] : [certificate, ...parent.chain]
  return { subject, certificate, privateKey, publicKey, chain }
}

export interface LeafChoices extends Choices {
  /** put into the URI SAN as it stands */
  readonly id: string
}

export function issueDev(ca: DevCa, choices: LeafChoices): DevLeaf {
  const { id, subject = commonName(''), keys = newKeys(), ...rest } = choices
  const { privateKey, publicKey } = keys
  const extensions = {
    keyUsage: keyUsage([keyUsages.digitalSignature]),
    extendedKeyUsage: extendedKeyUsage([serverAuth, clientAuth]),
    subjectKeyIdentifier: subjectKeyIdentifier(publicKey),
    authorityKeyIdentifier: authorityKeyIdentifier(ca.publicKey),
    subjectAltName: subjectAltName([generalName.uri(id)], { critical: true }),
  }
  const certificate = signedBy(ca, { subject, publicKey, extensions }, rest)
  return { chain: [certificate, ...ca.chain], privateKey }
}
