// The development certificates: one of each kind that a verifier has to accept or refuse.
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { keyUsages } from '../spiffe/certificate.ts'
import type { TrustDomain } from '../spiffe/id.ts'
import { clientAuth, serverAuth } from '../spiffe/svid.ts'
import { type DevCa, issueDev, type LeafChoices, makeDevCa } from './authority.ts'
import { algorithms } from './certificate.ts'
import {
  basicConstraints,
  extendedKeyUsage,
  generalName,
  keyUsage,
  nameConstraints,
  subjectAltName,
} from './extensions.ts'

export interface DevCertificate {
  readonly name: string
  /** DER, leaf first, without the root (but for the root itself) */
  readonly chain: readonly Buffer[]
  readonly privateKey: KeyObject
  /** what `verifySvid` answers with the root's certificate as the only authority of the bundle */
  readonly expect: 'accept' | 'reject'
  /** a part of the verifier's message; for what is accepted, why it is */
  readonly reason: string
  /** what the file is good for, for people */
  readonly use: string
}

export interface DevelopmentOptions {
  readonly trustDomain: TrustDomain
  /** milliseconds since the epoch */
  readonly now: number
}

export const hour = 3_600_000
export const day = 24 * hour
/** How long leaves live; a set is made anew at half of it. */
export const leafLifetime = 30 * day

interface Setting extends DevelopmentOptions {
  readonly root: DevCa
  readonly intermediate: DevCa
  /** the intermediate's name over another key */
  readonly foreign: DevCa
  /** may only issue under another trust domain's name */
  readonly constrained: DevCa
}

type LeafKind = (setting: Setting) => Partial<LeafChoices> & { readonly ca?: DevCa }
type Row = readonly [DevCertificate['expect'], string, string, LeafKind]

const uris = (...names: readonly string[]) => ({
  subjectAltName: subjectAltName(names.map(generalName.uri), { critical: true }),
})
const purposes = (...ids: readonly string[]) => ({ extendedKeyUsage: extendedKeyUsage(ids) })

/** By name: what a verifier says, why, what the file is good for, and how the leaf differs from `good`. */
const leaves: Readonly<Record<string, Row>> = {
  good: ['accept', 'an ordinary X509-SVID', 'a server or a workload', () => ({})],
  'good-client': [
    'accept',
    'an ordinary X509-SVID',
    'a second workload, the client of `good`',
    ({ trustDomain }) => ({ id: `spiffe://${trustDomain}/ns/default/sa/client` }),
  ],
  'rsa-leaf': [
    'accept',
    'an ordinary X509-SVID with an RSA key',
    'peers that know no elliptic curves',
    () => ({ keys: generateKeyPairSync('rsa', { modulusLength: 2048 }) }),
  ],
  'name-constrained-leaf': [
    'reject',
    'a uri name that is not permitted',
    'seeing that name constraints of a CA are kept',
    ({ constrained }) => ({ ca: constrained }),
  ],
  expired: [
    'reject',
    'expired at',
    'seeing that validity is checked',
    ({ now }) => ({ notBefore: now - 2 * hour, notAfter: now - hour }),
  ],
  'not-yet-valid': [
    'reject',
    'not valid before',
    'a clock that is behind',
    ({ now }) => ({ notBefore: now + 2 * leafLifetime, notAfter: now + 3 * leafLifetime }),
  ],
  'foreign-ca': [
    'reject',
    'a wrong signature',
    'a CA of the same name with another key',
    ({ foreign }) => ({ ca: foreign }),
  ],
  'server-only': [
    'reject',
    'without both serverAuth and clientAuth',
    'a certificate for web servers',
    () => ({ extensions: purposes(serverAuth) }),
  ],
  'client-only': [
    'reject',
    'without both serverAuth and clientAuth',
    'a certificate for people in a browser',
    () => ({ extensions: purposes(clientAuth) }),
  ],
  'two-uris': [
    'reject',
    '2 URI names instead of exactly one',
    'an identity smuggled in beside another',
    ({ trustDomain: td }) => ({ extensions: uris(`spiffe://${td}/a`, `spiffe://${td}/admin`) }),
  ],
  'no-uri': [
    'reject',
    '0 URI names instead of exactly one',
    'a certificate without an identity',
    () => ({ extensions: { subjectAltName: null } }),
  ],
  'dns-only': [
    'reject',
    '0 URI names instead of exactly one',
    'a certificate of the web, whose name is no identity here',
    () => ({
      extensions: {
        subjectAltName: subjectAltName([generalName.dns('good.example')], { critical: true }),
      },
    }),
  ],
  'not-spiffe': [
    'reject',
    'a URI name that is no SPIFFE ID',
    'a URI that looks like an identity',
    ({ trustDomain }) => ({ id: `https://${trustDomain}/ns/default/sa/good` }),
  ],
  'no-path': [
    'reject',
    'a SPIFFE ID without a path',
    'the name of the trust domain itself, which is nobody',
    ({ trustDomain }) => ({ id: `spiffe://${trustDomain}` }),
  ],
  'ca-as-leaf': [
    'reject',
    'a CA certificate, which never authenticates',
    'a CA certificate that pretends to be a workload',
    () => ({ extensions: { basicConstraints: basicConstraints() } }),
  ],
  'signing-leaf': [
    'reject',
    'a key usage with keyCertSign',
    'a leaf that claims to sign others',
    () => ({
      extensions: { keyUsage: keyUsage([keyUsages.digitalSignature, keyUsages.keyCertSign]) },
    }),
  ],
  'sha1-signature': [
    'reject',
    'an unknown signature algorithm',
    'a signature over a broken hash',
    () => ({ algorithm: algorithms.ecdsaSha1 }),
  ],
}

function authoritiesOf({ trustDomain, now }: DevelopmentOptions): Setting {
  const ownName = `spiffe://${trustDomain}`
  const extensions = { subjectAltName: subjectAltName([generalName.uri(ownName)]) }
  const times = { notBefore: now - day, notAfter: now + 3650 * day }
  const root = makeDevCa({ name: 'development root', ...times, extensions })
  const makeIntermediate = (parent: DevCa, more: Record<string, Buffer> = {}) => {
    const name = 'development intermediate'
    const all = { ...extensions, ...more }
    return makeDevCa({ name, parent, pathLength: 0, ...times, extensions: all })
  }
  const elsewhere = nameConstraints({ permitted: [generalName.uri('elsewhere.example')] })
  return {
    trustDomain,
    now,
    root,
    intermediate: makeIntermediate(root),
    foreign: makeIntermediate(makeDevCa({ name: 'development root', ...times, extensions })),
    constrained: makeIntermediate(root, { nameConstraints: elsewhere }),
  }
}

function leafOf(setting: Setting, name: string, row: Row): DevCertificate {
  const [expect, reason, use, kind] = row
  const { ca = setting.intermediate, ...choices } = kind(setting)
  const { chain, privateKey } = issueDev(ca, {
    id: `spiffe://${setting.trustDomain}/ns/default/sa/good`,
    notBefore: setting.now - hour,
    notAfter: setting.now + leafLifetime,
    ...choices,
  })
  return { name, chain, privateKey, expect, reason, use }
}

/** Makes the whole set anew, keys included; `root` comes first, `intermediate` second. */
export function makeDevelopmentCertificates(
  options: DevelopmentOptions,
): readonly [root: DevCertificate, intermediate: DevCertificate, ...DevCertificate[]] {
  const setting = authoritiesOf(options)
  const { root, intermediate } = setting
  const authority = { expect: 'reject', reason: 'a SPIFFE ID without a path' } as const
  return [
    {
      name: 'root',
      chain: [root.certificate],
      privateKey: root.privateKey,
      ...authority,
      use: 'the bundle: the only authority to trust',
    },
    {
      name: 'intermediate',
      chain: intermediate.chain,
      privateKey: intermediate.privateKey,
      ...authority,
      use: 'issuing more leaves by hand',
    },
    ...Object.entries(leaves).map(([name, row]) => leafOf(setting, name, row)),
  ]
}
