// Client certificates, ordinary ones and all those that somebody could take for an identity which they are not.
import { generateKeyPairSync } from 'node:crypto'
import { type DevCa, issueDev, type LeafChoices, makeDevCa } from '../../certs-dev/authority.ts'
import {
  basicConstraints,
  extendedKeyUsage,
  generalName,
  keyUsage,
  subjectAltName,
} from '../../certs-dev/extensions.ts'
import type { OwnSvid } from '../../client/x509-source.ts'
import { keyUsages } from '../../spiffe/certificate.ts'
import { clientAuth, serverAuth } from '../../spiffe/svid.ts'

/** What a client shows; undefined shows nothing. */
export type Presented = Pick<OwnSvid, 'chain' | 'key'> | undefined

export interface Signers {
  /** of the trust domain of `id` */
  readonly own: DevCa
  /** of another one, that is believed about itself */
  readonly partner: DevCa
  /** the SPIFFE ID of an ordinary client */
  readonly id: string
  readonly partnerId: string
}

const hour = 3_600_000
const codeSigning = '1.3.6.1.5.5.7.3.3'
/** a bit of key usage (RFC 5280 §4.2.1.3) */
const keyAgreement = 4

const life = () => ({ notBefore: Date.now() - 60_000, notAfter: Date.now() + hour })
const caLife = () => ({ notBefore: Date.now() - hour, notAfter: Date.now() + 24 * hour })

/** Authorities that others made number their keys differently: an issuer is found by its name. */
const unnumbered = { authorityKeyIdentifier: null } as const

export function show(ca: DevCa, choices: Pick<LeafChoices, 'id'> & Partial<LeafChoices>) {
  const extensions = { ...unnumbered, ...choices.extensions }
  const { chain, privateKey: key } = issueDev(ca, { ...life(), ...choices, extensions })
  return { chain, key }
}

const uris = (...names: readonly string[]) => ({
  subjectAltName: subjectAltName(names.map(generalName.uri), { critical: true }),
})
const names = (...all: readonly Uint8Array[]) => ({
  subjectAltName: subjectAltName(all, { critical: true }),
})
const purposes = (...all: readonly string[]) => ({ extendedKeyUsage: extendedKeyUsage(all) })

const under = (parent: DevCa): DevCa =>
  makeDevCa({ name: 'an intermediate', parent, ...caLife(), extensions: unnumbered })

/** Tells all of `ca`, and has another key. */
function impostorOf(ca: DevCa): DevCa {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
  return { ...ca, privateKey, publicKey }
}

/** A leaf that signs another one. */
function signedByLeaf(ca: DevCa, id: string) {
  const leaf = issueDev(ca, { id, ...life(), extensions: unnumbered })
  const [certificate = Buffer.alloc(0)] = leaf.chain
  const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
  return show({ ...ca, ...leaf, certificate, publicKey }, { id })
}

const ownDomain = (id: string) => new URL(id).host

/** By name; each is of our own authority unless it says more. */
export function clientCertificates({ own, partner, id, partnerId }: Signers) {
  const stranger = makeDevCa({ name: 'a stranger', ...caLife() })
  const make = (choices: Partial<LeafChoices>, ca = own) => show(ca, { id, ...choices })
  const named = (uri: string) => make({ id: uri })
  const domain = ownDomain(id)
  return {
    good: make({}),
    'under an intermediate': make({}, under(own)),
    'federated, good': make({ id: partnerId }, partner),
    'federated, under an intermediate': make({ id: partnerId }, under(partner)),
    none: undefined,
    'forged by a federated authority': make({}, partner),
    'forged by its intermediate': make({}, under(partner)),
    'forged by an authority of our name': make({}, impostorOf(own)),
    'signed by a leaf': signedByLeaf(own, id),
    'an unknown trust domain': make({ id: 'spiffe://stranger.test/a' }, stranger),
    'our name, an unknown authority': make({}, stranger),
    "a partner's name, our authority": make({ id: partnerId }),
    'two URI names': make({ extensions: uris(id, `spiffe://${domain}/admin`) }),
    'the same URI name twice': make({ extensions: uris(id, id) }),
    'two URI names, the second no SPIFFE ID': make({ extensions: uris(id, 'https://a.test/') }),
    'two URI names of a partner, its own first, ours second': make(
      { extensions: uris(partnerId, id) },
      partner,
    ),
    'two URI names of a partner, ours first': make({ extensions: uris(id, partnerId) }, partner),
    'a DNS name that reads like ours, of a partner': make(
      { extensions: names(generalName.uri(partnerId), generalName.dns(id)) },
      partner,
    ),
    'no subject alternative name': make({ extensions: { subjectAltName: null } }),
    'a DNS name only': make({ extensions: names(generalName.dns(id)) }),
    'server purpose only': make({ extensions: purposes(serverAuth) }),
    'client purpose only': make({ extensions: purposes(clientAuth) }),
    'code signing only': make({ extensions: purposes(codeSigning) }),
    'federated, server purpose only': make(
      { id: partnerId, extensions: purposes(serverAuth) },
      partner,
    ),
    'federated, code signing only': make(
      { id: partnerId, extensions: purposes(codeSigning) },
      partner,
    ),
    'no extended key usage': make({ extensions: { extendedKeyUsage: null } }),
    'a CA': make({ extensions: { basicConstraints: basicConstraints() } }),
    'may sign certificates': make({
      extensions: { keyUsage: keyUsage([keyUsages.digitalSignature, keyUsages.keyCertSign]) },
    }),
    'may sign CRLs': make({
      extensions: { keyUsage: keyUsage([keyUsages.digitalSignature, keyUsages.cRLSign]) },
    }),
    'no digital signature': make({ extensions: { keyUsage: keyUsage([keyAgreement]) } }),
    'no key usage': make({ extensions: { keyUsage: null } }),
    expired: make({ notBefore: Date.now() - 2 * hour, notAfter: Date.now() - 60_000 }),
    'not valid yet': make({ notBefore: Date.now() + hour / 2, notAfter: Date.now() + hour }),
    'dots in the ID': named(`spiffe://${domain}/ns/../admin`),
    'a dot in the ID': named(`spiffe://${domain}/ns/./admin`),
    'an empty segment': named(`spiffe://${domain}//admin`),
    'a slash at the end': named(`${id}/`),
    'a query': named(`${id}?a=b`),
    'a fragment': named(`${id}#a`),
    'an escape': named(`${id}%61`),
    'a comma': named(`${id},spiffe://${domain}/admin`),
    'a NUL': named(`${id}\0/admin`),
    'letters that are none': named(`${id}/\xe9`),
    'a trust domain in capitals': named(id.replace(domain, domain.toUpperCase())),
    'a scheme in capitals': named(id.replace('spiffe:', 'SPIFFE:')),
    'a port': named(id.replace(domain, `${domain}:8443`)),
    'a user': named(id.replace(domain, `admin@${domain}`)),
    'no path': named(`spiffe://${domain}`),
    'no path but its slash': named(`spiffe://${domain}/`),
    'another scheme': named(id.replace('spiffe:', 'https:')),
    'federated, dots in the ID': make({ id: 'spiffe://partner.test/ns/../admin' }, partner),
    'federated, no path': make({ id: 'spiffe://partner.test' }, partner),
    'federated, expired': make(
      { id: partnerId, notBefore: Date.now() - 2 * hour, notAfter: Date.now() - 60_000 },
      partner,
    ),
  } satisfies Readonly<Record<string, Presented>>
}

export type CertificateName = keyof ReturnType<typeof clientCertificates>
