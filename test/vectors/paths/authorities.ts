// Path vectors: who may sign - basic constraints, path length, key usage, extended key usage, critical extensions.
import { commonName } from '../../../certs-dev/certificate.ts'
import {
  basicConstraints,
  extendedKeyUsage,
  keyUsage,
  noAuthority,
} from '../../../certs-dev/extensions.ts'
import { extensionOids, keyUsages } from '../../../spiffe/certificate.ts'
import { tags } from '../../../spiffe/der.ts'
import { element, extension, integer, octetString, sequence } from '../../../spiffe/der-writer.ts'
import { clientAuth, serverAuth } from '../../../spiffe/svid.ts'
import { atEachLevel, ca, leaf, type Vector, vector } from '../../support/vectors.ts'

const unknown = (critical: boolean) => ({
  unknown: extension('1.3.6.1.4.1.99999.7', octetString(Buffer.from('?')), { critical }),
})
const notCritical = extension(
  extensionOids.basicConstraints,
  sequence(element(tags.boolean, Buffer.of(0xff))),
  { critical: false },
)
const lengthWithoutCa = extension(extensionOids.basicConstraints, sequence(integer(Buffer.of(0))), {
  critical: true,
})
const strict = {
  openssl: 'reject',
  why: '-x509_strict asks what binds CAs, not validators',
} as const

const noCa = 'signed by a certificate that is no CA'
const noCertSign = 'signed by a CA whose key usage lacks keyCertSign'
const tooLong = 'a path longer than its CA allows'
const noTls = 'signed by a CA whose extended key usage excludes TLS'

/** Root, then CAs named by `names` with `pathLength` in the first, then a leaf. */
function ladder(pathLength: number | undefined, ...names: readonly string[]) {
  const root = ca('root')
  const top = ca(names[0] ?? 'top', {
    parent: root,
    ...(pathLength !== undefined && { pathLength }),
  })
  const last = names.slice(1).reduce((parent, name) => ca(name, { parent }), top)
  return { chain: leaf(last), roots: [root.certificate] }
}

const lengths: readonly Vector[] = [
  { name: 'path length 0 above a leaf', ...ladder(0, 'a'), reason: undefined },
  { name: 'path length 0 above a CA', ...ladder(0, 'a', 'b'), reason: `issuer 2: ${tooLong}` },
  { name: 'path length 1 above a CA', ...ladder(1, 'a', 'b'), reason: undefined },
  {
    name: 'path length 1 above two CAs',
    ...ladder(1, 'a', 'b', 'c'),
    reason: `issuer 3: ${tooLong}`,
  },
  { name: 'path length 0 above a self-issued CA', ...ladder(0, 'a', 'a'), reason: undefined },
  {
    name: 'path length 0 above a self-issued and another CA',
    ...ladder(0, 'a', 'a', 'b'),
    reason: `issuer 3: ${tooLong}`,
  },
  { name: 'eight intermediates', ...ladder(undefined, ...'abcdefgh'), reason: undefined },
  {
    name: 'nine intermediates',
    ...ladder(undefined, ...'abcdefghi'),
    reason: '9 intermediates (at most 8)',
    difference: { openssl: 'accept', why: 'its limit is 100' },
  },
  vector(
    'path length 0 in the root above an intermediate',
    { root: { pathLength: 0 } },
    `issuer 2: ${tooLong}`,
  ),
  vector('path length 1 in the root', { root: { pathLength: 1 } }, undefined),
]

const constraints = (it: Buffer | null) => ({ extensions: { basicConstraints: it } })
const usage = (it: Buffer | null) => ({ extensions: { keyUsage: it } })
const purposes = (...ids: readonly string[]) => ({
  extensions: { extendedKeyUsage: extendedKeyUsage(ids) },
})

export const authorityVectors: readonly Vector[] = [
  ...lengths,
  vector(
    'an intermediate without basic constraints',
    { intermediate: constraints(null) },
    `issuer 1: ${noCa}`,
  ),
  vector('a root without basic constraints', { root: constraints(null) }, `issuer 2: ${noCa}`),
  vector(
    'an intermediate whose basic constraints say no CA',
    { intermediate: constraints(noAuthority()) },
    `issuer 1: ${noCa}`,
  ),
  vector(
    'a leaf whose basic constraints say no CA',
    { leaf: constraints(noAuthority()) },
    undefined,
  ),
  vector(
    'a path length without CA',
    { intermediate: constraints(lengthWithoutCa) },
    'a path length but no CA',
  ),
  vector(
    'basic constraints that are not critical',
    { intermediate: constraints(notCritical) },
    undefined,
    strict,
  ),
  vector(
    'a CA certificate at the end of the path',
    {
      leaf: {
        extensions: {
          basicConstraints: basicConstraints(),
          keyUsage: keyUsage([keyUsages.keyCertSign]),
        },
      },
    },
    undefined,
    { openssl: 'reject', why: 'its purpose check looks at the leaf; ours is in verifySvid' },
  ),
  vector(
    'an intermediate without keyCertSign',
    { intermediate: usage(keyUsage([keyUsages.cRLSign])) },
    `issuer 1: ${noCertSign}`,
  ),
  vector(
    'a root without keyCertSign',
    { root: usage(keyUsage([keyUsages.digitalSignature])) },
    `issuer 2: ${noCertSign}`,
  ),
  vector('an intermediate without key usage', { intermediate: usage(null) }, undefined, strict),
  vector(
    'an intermediate that is an ordinary leaf',
    {
      intermediate: {
        extensions: { basicConstraints: null, keyUsage: keyUsage([keyUsages.digitalSignature]) },
      },
    },
    `issuer 1: ${noCa}`,
  ),
  vector(
    'a CA without a subject',
    { intermediate: { subject: commonName('') } },
    'issuer 1: signed by a CA without a subject',
  ),
  vector(
    'both purposes in the intermediate',
    { intermediate: purposes(serverAuth, clientAuth) },
    undefined,
  ),
  vector(
    'only serverAuth in the intermediate',
    { intermediate: purposes(serverAuth) },
    `issuer 1: ${noTls}`,
  ),
  vector(
    'only clientAuth in the intermediate',
    { intermediate: purposes(clientAuth) },
    `issuer 1: ${noTls}`,
  ),
  vector(
    'only e-mail protection in the intermediate',
    { intermediate: purposes('1.3.6.1.5.5.7.3.4') },
    `issuer 1: ${noTls}`,
  ),
  vector('only clientAuth in the root', { root: purposes(clientAuth) }, `issuer 2: ${noTls}`),
  vector('any purpose in the intermediate', { intermediate: purposes('2.5.29.37.0') }, undefined, {
    openssl: 'reject',
    why: 'OpenSSL 3.0 does not take anyExtendedKeyUsage for a TLS purpose',
  }),
  ...atEachLevel(
    'an unknown critical extension',
    { extensions: unknown(true) },
    'an unknown critical extension 1.3.6.1.4.1.99999.7',
  ),
  ...atEachLevel(
    'an unknown extension that is not critical',
    { extensions: unknown(false) },
    undefined,
  ),
]
