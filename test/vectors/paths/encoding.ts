// Path vectors: certificates that are written wrong, at each level.
import {
  basicConstraints,
  generalName,
  keyUsage,
  nameConstraints,
  subjectAltName,
} from '../../../certs-dev/extensions.ts'
import { extensionOids, keyUsages } from '../../../spiffe/certificate.ts'
import { tags } from '../../../spiffe/der.ts'
import {
  bitString,
  element,
  extension,
  integer,
  octetString,
  oid,
  sequence,
  set,
} from '../../../spiffe/der-writer.ts'
import {
  atEachLevel,
  type Difference,
  threeLevels,
  type Vector,
  vector,
} from '../../support/vectors.ts'

const critical = { critical: true }
const lenient = { openssl: 'accept', why: 'OpenSSL reads BER as well' } as const
const oddity = (why: string) => ({ openssl: 'accept', why }) as const

const falseFlag = element(tags.boolean, Buffer.of(0))
const explicitFalse = sequence(oid('1.3.6.1.4.1.99999.8'), falseFlag, octetString(Buffer.of(5, 0)))
const usualUsage = keyUsage([keyUsages.digitalSignature])
const longerUsage = extension(
  extensionOids.keyUsage,
  element(tags.bitString, Buffer.of(0), Buffer.of(0x80)),
  critical,
)
const basic = (...parts: readonly Uint8Array[]) => ({
  extensions: {
    basicConstraints: extension(extensionOids.basicConstraints, sequence(...parts), critical),
  },
})
const constraints = (...parts: readonly Uint8Array[]) => ({
  extensions: {
    nameConstraints: extension(extensionOids.nameConstraints, sequence(...parts), critical),
  },
})
const subtree = (...rest: readonly Uint8Array[]) =>
  sequence(generalName.uri('example.org'), ...rest)
const names = (...list: readonly Uint8Array[]) => ({
  extensions: { subjectAltName: subjectAltName(list, critical) },
})

/** The chain of an ordinary path after a change to one certificate's bytes; its signature breaks nothing here. */
function rewritten(
  name: string,
  level: 0 | 1,
  change: (der: Uint8Array) => Uint8Array,
  reason: string,
  difference?: Difference,
): Vector {
  const { chain, roots } = threeLevels({})
  const changed = chain.map((der, i) => (i === level ? change(der) : der))
  return { name, chain: changed, roots, reason, ...(difference && { difference }) }
}

const trailing = (der: Uint8Array) => Buffer.concat([der, Buffer.of(0)])
const malformed = 'malformed certificate'
const loose = oddity('PEM lets OpenSSL stop after the first element')
const unfinished = oddity('OpenSSL does not look')

export const encodingVectors: readonly Vector[] = [
  rewritten('a byte behind the leaf', 0, trailing, 'trailing bytes', loose),
  rewritten('a byte behind the intermediate', 1, trailing, 'trailing bytes', loose),
  rewritten('a truncated leaf', 0, (der) => der.subarray(0, -1), 'truncated'),
  rewritten('an empty leaf', 0, () => Buffer.alloc(0), 'truncated'),
  ...atEachLevel('version 1 with extensions', { version: 0 }, undefined).map((it) => ({
    ...it,
    reason: 'no version 3 certificate',
  })),
  ...atEachLevel('version 2', { version: 1 }, undefined).map((it) => ({
    ...it,
    reason: 'no version 3 certificate',
  })),
  ...atEachLevel('version 4', { version: 3 }, undefined).map((it) => ({
    ...it,
    reason: 'no version 3 certificate',
    difference: unfinished,
  })),
  ...(['leaf', 'intermediate', 'root'] as const).flatMap((level) => [
    vector(
      `a second extension of the same kind in the ${level}`,
      { [level]: { extensions: { again: level === 'leaf' ? usualUsage : basicConstraints() } } },
      'a second extension',
    ),
    vector(
      `an explicit FALSE in the ${level}`,
      { [level]: { extensions: { unknown: explicitFalse } } },
      'a FALSE that has to be left out',
      lenient,
    ),
    vector(
      `an empty SAN in the ${level}`,
      { [level]: { extensions: { subjectAltName: subjectAltName([]) } } },
      'an empty list of names',
    ),
    vector(
      `a serial of 20 bytes in the ${level}`,
      { [level]: { serial: Buffer.alloc(20, 0xff) } },
      undefined,
    ),
    vector(
      `a serial of 21 bytes in the ${level}`,
      { [level]: { serial: Buffer.alloc(21, 0x7f) } },
      'a serial that is negative or longer',
      unfinished,
    ),
  ]),
  vector('cA as an explicit FALSE', { intermediate: basic(falseFlag) }, 'an explicit FALSE'),
  vector(
    'cA as an explicit FALSE in the leaf',
    { leaf: basic(falseFlag) },
    'an explicit FALSE',
    lenient,
  ),
  vector(
    'cA as 0x01',
    { intermediate: basic(element(tags.boolean, Buffer.of(1))) },
    'neither 0x00 nor 0xff',
    lenient,
  ),
  vector(
    'a path length that is negative',
    {
      intermediate: basic(
        element(tags.boolean, Buffer.of(0xff)),
        element(tags.integer, Buffer.of(0xff)),
      ),
    },
    'an integer out of range',
  ),
  vector(
    'a path length not in its shortest form',
    {
      intermediate: basic(
        element(tags.boolean, Buffer.of(0xff)),
        element(tags.integer, Buffer.of(0, 1)),
      ),
    },
    'an integer not in its shortest form',
  ),
  vector(
    'three members in basic constraints',
    {
      intermediate: basic(
        element(tags.boolean, Buffer.of(0xff)),
        integer(Buffer.of(1)),
        integer(Buffer.of(1)),
      ),
    },
    'more than 2 elements',
  ),
  vector(
    'a key usage not in its shortest form',
    { leaf: { extensions: { keyUsage: longerUsage } } },
    'a named bit list not in its shortest form',
    lenient,
  ),
  vector(
    'a key usage that is no bit string',
    {
      leaf: {
        extensions: {
          keyUsage: extension(extensionOids.keyUsage, octetString(Buffer.of(1)), critical),
        },
      },
    },
    'tag 0x4 instead of 0x3',
  ),
  vector(
    'bytes behind a key usage',
    {
      leaf: {
        extensions: {
          keyUsage: extension(extensionOids.keyUsage, Buffer.of(3, 2, 7, 0x80, 0), critical),
        },
      },
    },
    'trailing bytes',
    unfinished,
  ),
  vector(
    'an address of three bytes',
    { leaf: names(generalName.ip(1, 2, 3)) },
    'an ip address of a wrong length',
    unfinished,
  ),
  vector(
    'a URI beyond ASCII',
    { leaf: names(generalName.uri('spiffe://example.org/\u00e9')) },
    'a name that is not ASCII',
    unfinished,
  ),
  vector(
    'a directory name that is a set',
    { leaf: names(generalName.directory(set())) },
    'tag 0x31 instead of 0x30',
  ),
  vector(
    'name constraints without a subtree',
    { intermediate: constraints() },
    'malformed name constraints',
    unfinished,
  ),
  vector(
    'name constraints with an empty list',
    { intermediate: constraints(element(0xa0)) },
    'an empty list of subtrees',
    unfinished,
  ),
  vector(
    'excluded before permitted',
    { intermediate: constraints(element(0xa1, subtree()), element(0xa0, subtree())) },
    'malformed name constraints',
  ),
  vector(
    'permitted twice',
    { intermediate: constraints(element(0xa0, subtree()), element(0xa0, subtree())) },
    'malformed name constraints',
  ),
  vector(
    'a subtree with a minimum',
    { intermediate: constraints(element(0xa0, subtree(element(0x80, Buffer.of(1))))) },
    'a subtree with minimum or maximum',
  ),
  vector(
    'a subtree without a base',
    { intermediate: constraints(element(0xa0, sequence())) },
    'a subtree with minimum or maximum',
  ),
  vector(
    'name constraints in a leaf',
    {
      leaf: {
        extensions: {
          nameConstraints: nameConstraints({ permitted: [generalName.uri('other.org')] }),
        },
      },
    },
    undefined,
  ),
  vector(
    'a subject that is no sequence of sets',
    { leaf: { subject: sequence(sequence()) } },
    'tag 0x30 instead of 0x31',
  ),
  vector(
    'an extension whose value is a bit string',
    { leaf: { extensions: { odd: sequence(oid('1.2.3'), bitString(Buffer.of(1))) } } },
    'tag 0x3 instead of 0x4',
  ),
  vector(
    'an extension without a value',
    { leaf: { extensions: { odd: sequence(oid('1.2.3')) } } },
    malformed,
  ),
]
