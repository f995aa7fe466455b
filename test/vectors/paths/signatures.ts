// Path vectors: who signed, with what key and by which algorithm.
import { generateKeyPairSync } from 'node:crypto'
import { newKeys } from '../../../certs-dev/authority.ts'
import { algorithms, commonName } from '../../../certs-dev/certificate.ts'
import { oid, sequence } from '../../../spiffe/der-writer.ts'
import { atEachLevel, ca, leaf, type Vector, vector } from '../../support/vectors.ts'

const rsa1024 = generateKeyPairSync('rsa', { modulusLength: 1024 })
const rsa2048 = generateKeyPairSync('rsa', { modulusLength: 2048 })
const p384 = generateKeyPairSync('ec', { namedCurve: 'secp384r1' })
const p521 = generateKeyPairSync('ec', { namedCurve: 'secp521r1' })
const k256 = generateKeyPairSync('ec', { namedCurve: 'secp256k1' })
const explicit = generateKeyPairSync('ec', {
  namedCurve: 'prime256v1',
  paramEncoding: 'explicit',
})
const ed25519 = generateKeyPairSync('ed25519')
const ed448 = generateKeyPairSync('ed448')

const stranger = newKeys().privateKey
const notOnOurList = { openssl: 'accept', why: 'our list of keys is shorter' } as const

function flipped(der: Uint8Array): Buffer {
  const copy = Buffer.from(der)
  copy.writeUInt8(copy.readUInt8(copy.length - 1) ^ 1, copy.length - 1)
  return copy
}

function withWrongLastByte(): Pick<Vector, 'chain' | 'roots'> {
  const root = ca('root')
  const [own = Buffer.alloc(0)] = leaf(root)
  return { chain: [flipped(own)], roots: [root.certificate] }
}

function withWrongRootSignature(): Pick<Vector, 'chain' | 'roots'> {
  const root = ca('root')
  return { chain: leaf(root), roots: [flipped(root.certificate)] }
}

export const signatureVectors: readonly Vector[] = [
  vector('a leaf signed by a stranger', { leaf: { signingKey: stranger } }, 'a wrong signature'),
  vector(
    'an intermediate signed by a stranger',
    { intermediate: { signingKey: stranger } },
    'a wrong signature',
  ),
  { name: 'one bit of the signature', ...withWrongLastByte(), reason: 'a wrong signature' },
  {
    name: 'a trust anchor whose own signature is wrong',
    ...withWrongRootSignature(),
    reason: undefined,
  },
  vector('a leaf naming another issuer', { leaf: { issuer: commonName('other') } }, 'no path'),
  vector(
    'an intermediate naming another issuer',
    { intermediate: { issuer: commonName('other') } },
    'no path',
  ),
  vector(
    'RSA of 2048 bits throughout',
    { root: { keys: rsa2048 }, intermediate: { keys: rsa2048 }, leaf: { keys: rsa2048 } },
    undefined,
  ),
  vector('a leaf with RSA of 1024 bits', { leaf: { keys: rsa1024 } }, 'an RSA key of 1024 bits'),
  vector(
    'an intermediate with RSA of 1024 bits',
    { intermediate: { keys: rsa1024 } },
    'an RSA key of 1024 bits',
  ),
  vector('a root with RSA of 1024 bits', { root: { keys: rsa1024 } }, 'an RSA key of 1024 bits'),
  vector('P-384 and P-521', { root: { keys: p521 }, intermediate: { keys: p384 } }, undefined),
  vector(
    'Ed25519 throughout',
    { root: { keys: ed25519 }, intermediate: { keys: ed25519 }, leaf: { keys: ed25519 } },
    undefined,
  ),
  vector('a leaf on secp256k1', { leaf: { keys: k256 } }, 'an EC key on secp256k1', notOnOurList),
  vector(
    'a CA on secp256k1',
    { intermediate: { keys: k256 } },
    'an EC key on secp256k1',
    notOnOurList,
  ),
  vector(
    'a leaf whose curve is spelled out',
    { leaf: { keys: explicit } },
    'a key that spells out its parameters',
  ),
  vector(
    'a CA whose curve is spelled out',
    { intermediate: { keys: explicit } },
    'a key that spells out its parameters',
  ),
  vector('a leaf with Ed448', { leaf: { keys: ed448 } }, 'a key of type ed448', notOnOurList),
  ...(['ecdsaSha384', 'ecdsaSha512'] as const).map((name) =>
    vector(`P-256 with ${name}`, { leaf: { algorithm: algorithms[name] } }, undefined),
  ),
  ...(['rsaSha384', 'rsaSha512'] as const).map((name) =>
    vector(
      `RSA with ${name}`,
      { intermediate: { keys: rsa2048 }, leaf: { algorithm: algorithms[name] } },
      undefined,
    ),
  ),
  vector(
    'ECDSA with SHA-1',
    { leaf: { algorithm: algorithms.ecdsaSha1 } },
    'an unknown signature algorithm',
  ),
  vector(
    'RSA with SHA-1',
    { intermediate: { keys: rsa2048 }, leaf: { algorithm: algorithms.rsaSha1 } },
    'an unknown signature algorithm',
  ),
  vector(
    'an unheard-of algorithm',
    { leaf: { algorithm: { identifier: sequence(oid('1.3.6.1.4.1.99999.1')), hash: 'sha256' } } },
    'an unknown signature algorithm',
  ),
  vector(
    'ECDSA with parameters, which RFC 5758 forbids',
    {
      leaf: {
        algorithm: {
          identifier: sequence(oid('1.2.840.10045.4.3.2'), Buffer.of(5, 0)),
          hash: 'sha256',
        },
      },
    },
    'an unknown signature algorithm',
    { openssl: 'accept', why: 'OpenSSL does not look at the parameters of ECDSA' },
  ),
  vector(
    'an RSA algorithm by an EC key',
    { leaf: { algorithm: algorithms.rsaSha256 } },
    'a sha256WithRSA signature by another kind of key',
  ),
  vector(
    'an EC algorithm by an RSA key',
    { intermediate: { keys: rsa2048 }, leaf: { algorithm: algorithms.ecdsaSha256 } },
    'a ecdsa-with-SHA256 signature by another kind of key',
  ),
  ...atEachLevel('a serial of zero', { serial: Buffer.of(0) }, undefined),
]
