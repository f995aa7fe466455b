// A certificate that this node already has, and the proof that it holds its key (SPIRE's `x509pop`): the
// authority's nonce and one of ours are signed.
import {
  constants,
  createPrivateKey,
  type KeyObject,
  randomBytes,
  sign,
  X509Certificate,
} from 'node:crypto'
import { readFileSync } from 'node:fs'
import { z } from 'zod'
import { explain, IdentityError } from '../../spiffe/errors.ts'
import { parsePem } from '../../spiffe/pem.ts'
import type { NodeAttestor } from './attestor.ts'

export interface X509PopFiles {
  /** PEM: the node's certificate, then the intermediates */
  readonly certificate: string
  /** PEM, PKCS#8 or the older forms, not encrypted */
  readonly key: string
}

const nonceBytes = 32
const nonce = z.object({ nonce: z.base64() })
const question = z.object({ rsa_signature: nonce.nullish(), ecdsa_signature: nonce.nullish() })

const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64')
const json = (value: unknown) => new Uint8Array(Buffer.from(JSON.stringify(value)))

function read<T>(field: string, file: string, parse: (text: string) => T): T {
  try {
    return parse(readFileSync(file, 'utf8'))
  } catch (cause) {
    const message = `x509pop.${field}: cannot read ${file}: ${explain(cause)}`
    throw new IdentityError('ERR_CONFIG', message, { cause })
  }
}

function load({ certificate, key: keyFile }: X509PopFiles) {
  const chain = read('certificate', certificate, (text) =>
    parsePem(text, 'CERTIFICATE', certificate),
  )
  const key = read('key', keyFile, createPrivateKey)
  const [leaf] = chain
  if (leaf !== undefined && new X509Certificate(leaf).checkPrivateKey(key)) return { chain, key }
  throw new IdentityError(
    'ERR_CONFIG',
    `x509pop: the key in ${keyFile} is not that of the first certificate in ${certificate}`,
  )
}

function signed(key: KeyObject, challenge: Uint8Array): Uint8Array {
  const asked = question.parse(JSON.parse(Buffer.from(challenge).toString('utf8')))
  const own = randomBytes(nonceBytes)
  const both = (theirs: string) => Buffer.concat([Buffer.from(theirs, 'base64'), own])
  if (asked.rsa_signature != null) {
    const padding = constants.RSA_PKCS1_PSS_PADDING
    const signature = sign('sha256', both(asked.rsa_signature.nonce), { key, padding })
    return json({ rsa_signature: { nonce: base64(own), signature: base64(signature) } })
  }
  if (asked.ecdsa_signature != null) {
    const bytes = both(asked.ecdsa_signature.nonce)
    const raw = sign('sha256', bytes, { key, dsaEncoding: 'ieee-p1363' })
    const [r, s] = [raw.subarray(0, raw.length / 2), raw.subarray(raw.length / 2)].map(base64)
    return json({ ecdsa_signature: { nonce: base64(own), r, s } })
  }
  throw new Error('it asks for neither rsa_signature nor ecdsa_signature')
}

/** The files are read anew for each attestation: whoever renews the certificate replaces them. */
export function x509PopAttestor(files: X509PopFiles): NodeAttestor {
  return {
    type: 'x509pop',
    payload: () => json({ certificates: load(files).chain.map(base64) }),
    respond(challenge) {
      const { key } = load(files)
      try {
        return signed(key, challenge)
      } catch (cause) {
        const message = `x509pop: the authority's challenge cannot be answered: ${explain(cause)}`
        throw new IdentityError('ERR_BAD_REQUEST', message, { cause })
      }
    },
    isRepeatable: true,
  }
}
