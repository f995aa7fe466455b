// Path vectors: name constraints on URIs, and constraints at several depths.
import { generalName, nameConstraints, subjectAltName } from '../../../certs-dev/extensions.ts'
import {
  atBothLevels,
  excluded,
  excludes,
  named,
  permits,
  type Row,
  unpermitted,
} from '../../support/constraints.ts'
import { ca, leaf, type Vector } from '../../support/vectors.ts'

const { uri, dns } = generalName

const workload = uri('spiffe://example.org/a')
const hostless = named(uri('urn:example:a'))
const address = named(uri('spiffe://10.0.0.1/a'))
const ownDomain = {
  openssl: 'accept',
  why: 'OpenSSL compares an address like a host name',
} as const

const uris: readonly Row[] = [
  ['a permitted host', permits(uri('example.org')), named(workload), undefined],
  ['another host than permitted', permits(uri('example.com')), named(workload), unpermitted('uri')],
  [
    'one of two permitted hosts',
    permits(uri('a.org'), uri('example.org')),
    named(workload),
    undefined,
  ],
  [
    'a host below the permitted one',
    permits(uri('example.org')),
    named(uri('spiffe://a.example.org/b')),
    unpermitted('uri'),
  ],
  [
    'a host below a leading dot',
    permits(uri('.example.org')),
    named(uri('spiffe://a.b.example.org/b')),
    undefined,
  ],
  ['the host of a leading dot', permits(uri('.example.org')), named(workload), unpermitted('uri')],
  [
    'a host that only ends alike',
    permits(uri('.example.org')),
    named(uri('spiffe://badexample.org/b')),
    unpermitted('uri'),
  ],
  ['an excluded host', excludes(uri('example.org')), named(workload), excluded('uri')],
  [
    'an excluded leading dot',
    excludes(uri('.example.org')),
    named(uri('spiffe://a.example.org/b')),
    excluded('uri'),
  ],
  ['a host beside an excluded one', excludes(uri('example.com')), named(workload), undefined],
  [
    'a host permitted and excluded',
    { ...permits(uri('example.org')), ...excludes(uri('example.org')) },
    named(workload),
    excluded('uri'),
  ],
  ['a host in other letters', permits(uri('EXAMPLE.org')), named(workload), undefined],
  [
    'the empty host, which is every host',
    permits(uri('')),
    named(workload),
    undefined,
    { openssl: 'reject', why: 'OpenSSL compares the empty base as a host' },
  ],
  [
    'a URI without a host, permitted some',
    permits(uri('example.org')),
    hostless,
    unpermitted('uri'),
  ],
  ['a URI without a host, excluded some', excludes(uri('example.com')), hostless, excluded('uri')],
  [
    'an address as host, permitted some',
    permits(uri('10.0.0.1')),
    address,
    unpermitted('uri'),
    ownDomain,
  ],
  [
    'an address as host, excluded some',
    excludes(uri('example.com')),
    address,
    excluded('uri'),
    ownDomain,
  ],
  [
    'an IPv6 address as host',
    permits(uri('example.org')),
    named(uri('spiffe://[::1]/a')),
    unpermitted('uri'),
  ],
  [
    'a user before the host',
    permits(uri('example.org')),
    named(uri('https://example.org@evil.org/')),
    unpermitted('uri'),
  ],
  [
    'a port behind the host',
    permits(uri('example.org')),
    named(uri('https://example.org:8443/')),
    undefined,
  ],
  [
    'a host and nothing else',
    permits(uri('example.org')),
    named(uri('spiffe://example.org')),
    undefined,
  ],
  ['constraints on another kind only', permits(dns('example.com')), named(workload), undefined],
]

function deep(): readonly Vector[] {
  const constraint = nameConstraints(permits(uri('example.org'), dns('example.org')))
  const root = ca('root', { extensions: { nameConstraints: constraint } })
  const san = (...names: readonly Uint8Array[]) => ({ ca: subjectAltName(names) })
  const below = (name: string, ...names: readonly Uint8Array[]) =>
    leaf(ca(name, { parent: root, ...(names.length > 0 && { extensions: san(...names) }) }))
  const roots = [root.certificate]
  return [
    {
      name: 'an intermediate inside the constraints of the root',
      chain: below('a', uri('spiffe://example.org')),
      roots,
      reason: undefined,
    },
    {
      name: 'an intermediate outside the constraints of the root',
      chain: below('a', uri('spiffe://example.com')),
      roots,
      reason: unpermitted('uri'),
    },
    {
      name: 'a self-issued intermediate outside the constraints of the root',
      chain: below('root', uri('spiffe://example.com')),
      roots,
      reason: undefined,
    },
    {
      name: 'constraints of the root on an unconstrained intermediate',
      chain: below('a'),
      roots,
      reason: undefined,
    },
    {
      name: 'constraints of an intermediate that widen those of the root',
      chain: leaf(
        ca('a', {
          parent: root,
          extensions: { nameConstraints: nameConstraints(permits(uri('example.com'))) },
        }),
        { id: 'spiffe://example.com/a' },
      ),
      roots,
      reason: unpermitted('uri'),
    },
  ]
}

export const uriNameVectors: readonly Vector[] = [...atBothLevels(uris), ...deep()]
