// Path vectors: name constraints on DNS, e-mail, IP and directory names, and on kinds nobody can compare.
import { distinguishedName } from '../../../certs-dev/certificate.ts'
import { generalName } from '../../../certs-dev/extensions.ts'
import { element } from '../../../spiffe/der-writer.ts'
import {
  atBothLevels,
  called,
  excluded,
  excludes,
  named,
  permits,
  type Row,
  unpermitted,
} from '../../support/constraints.ts'
import type { Vector } from '../../support/vectors.ts'

const { uri, dns, email, ip, directory } = generalName
const workload = uri('spiffe://example.org/a')

const hosts: readonly Row[] = [
  [
    'the permitted DNS name',
    permits(dns('example.org')),
    named(workload, dns('example.org')),
    undefined,
  ],
  [
    'below the permitted DNS name',
    permits(dns('example.org')),
    named(workload, dns('a.b.example.org')),
    undefined,
  ],
  [
    'beside the permitted DNS name',
    permits(dns('example.org')),
    named(workload, dns('badexample.org')),
    unpermitted('dns'),
  ],
  [
    'the second DNS name beside the permitted one',
    permits(dns('example.org')),
    named(dns('example.org'), dns('evil.com')),
    unpermitted('dns'),
  ],
  [
    'below the excluded DNS name',
    excludes(dns('example.org')),
    named(workload, dns('a.EXAMPLE.org')),
    excluded('dns'),
  ],
  [
    'beside the excluded DNS name',
    excludes(dns('example.org')),
    named(workload, dns('example.com')),
    undefined,
  ],
  [
    'every DNS name excluded',
    excludes(dns('')),
    named(workload, dns('example.com')),
    excluded('dns'),
  ],
]

const mailboxes: readonly Row[] = [
  [
    'the permitted mailbox',
    permits(email('a@example.org')),
    named(email('a@EXAMPLE.org')),
    undefined,
  ],
  [
    'another mailbox than permitted',
    permits(email('a@example.org')),
    named(email('b@example.org')),
    unpermitted('email'),
  ],
  [
    'the permitted mailbox in capitals',
    permits(email('a@example.org')),
    named(email('A@example.org')),
    unpermitted('email'),
  ],
  [
    'a mailbox at the permitted host',
    permits(email('example.org')),
    named(email('b@example.org')),
    undefined,
  ],
  [
    'a mailbox below the permitted host',
    permits(email('example.org')),
    named(email('b@a.example.org')),
    unpermitted('email'),
  ],
  [
    'a mailbox below a leading dot',
    permits(email('.example.org')),
    named(email('b@a.example.org')),
    undefined,
  ],
  [
    'a mailbox at an excluded host',
    excludes(email('example.org')),
    named(email('b@example.org')),
    excluded('email'),
  ],
  [
    'a mailbox without an at sign',
    excludes(email('example.org')),
    named(email('example.com')),
    excluded('email'),
  ],
]

const v4 = ip(10, 1, 0, 0, 255, 255, 0, 0)
const zeros = (count: number) => Array.from({ length: count }, () => 0)
const v6 = ip(0x20, 1, 0xd, 0xb8, ...zeros(12), 255, 255, 255, 255, ...zeros(12))
const v6Name = (third: number) => ip(0x20, 1, third, 0xb8, ...zeros(11), 1)

const addresses: readonly Row[] = [
  ['an IPv4 address inside', permits(v4), named(ip(10, 1, 2, 3)), undefined],
  ['an IPv4 address outside', permits(v4), named(ip(10, 2, 2, 3)), unpermitted('ip')],
  ['an excluded IPv4 address', excludes(v4), named(ip(10, 1, 255, 255)), excluded('ip')],
  ['an IPv4 address beside an excluded one', excludes(v4), named(ip(10, 0, 255, 255)), undefined],
  ['an IPv6 address inside', permits(v6), named(v6Name(0xd)), undefined],
  ['an IPv6 address outside', permits(v6), named(v6Name(0xe)), unpermitted('ip')],
  ['an excluded IPv6 address', excludes(v6), named(v6Name(0xd)), excluded('ip')],
  ['an IPv6 address where IPv4 is permitted', permits(v4), named(v6Name(0xd)), unpermitted('ip')],
  ['every IPv4 address excluded', excludes(ip(...zeros(8))), named(ip(1, 2, 3, 4)), excluded('ip')],
  [
    'a mask with a hole',
    permits(ip(10, 1, 0, 0, 255, 0, 255, 0)),
    named(ip(10, 1, 0, 3)),
    'an ip constraint that is no address and mask',
    { openssl: 'accept', why: 'OpenSSL applies any mask' },
  ],
  [
    'a constraint without mask',
    permits(ip(10, 1, 0, 0)),
    named(ip(10, 1, 0, 0)),
    'an ip constraint that is no address and mask',
  ],
]

const [org, unit, person] = [
  ['2.5.4.10', 'Example'],
  ['2.5.4.11', 'A'],
  ['2.5.4.3', 'p'],
] as const
const subtree = directory(distinguishedName(org))

const directories: readonly Row[] = [
  ['a subject inside', permits(subtree), called(org, unit, person), undefined],
  ['the subject itself', permits(subtree), called(org), undefined],
  ['a subject outside', permits(subtree), called(unit, org), unpermitted('directory')],
  ['an excluded subject', excludes(subtree), called(org, unit), excluded('directory')],
  [
    'a subject above an excluded one',
    excludes(directory(distinguishedName(org, unit))),
    called(org),
    undefined,
  ],
  [
    'a directory name outside',
    permits(subtree),
    named(directory(distinguishedName(unit))),
    unpermitted('directory'),
  ],
  ['an empty subject where some are permitted', permits(subtree), {}, undefined],
]

const registered = (last: number) => element(0x88, Buffer.of(0x2a, last))
const others: readonly Row[] = [
  [
    'an excluded kind nobody can compare',
    excludes(registered(3)),
    named(workload, registered(4)),
    excluded('other'),
  ],
  [
    'a permitted kind nobody can compare',
    permits(registered(3)),
    named(workload, registered(3)),
    unpermitted('other'),
  ],
  [
    'a kind nobody can compare, under constraints on another',
    permits(registered(3)),
    named(workload, element(0xa0, element(6, Buffer.of(0x2a, 3)), element(0xa0, element(12)))),
    undefined,
  ],
  [
    'a kind nobody can compare, absent from the leaf',
    excludes(registered(3)),
    named(workload),
    undefined,
  ],
]

export const otherNameVectors: readonly Vector[] = atBothLevels([
  ...hosts,
  ...mailboxes,
  ...addresses,
  ...directories,
  ...others,
])
