// Lowered policies as a person reads them.
import type { Lowered, Refused, Remark } from '../../policies/lower/lower.ts'
import type { Demand } from '../../policies/lower/lowering.ts'
import type { AddressInput, Comparison, Input, Predicate } from '../../policies/lower/predicate.ts'
import type { Tree } from '../../policies/lower/tree.ts'

const guards: Readonly<Record<string, string>> = {
  'guard[identity]': 'a certificate that shows no single SPIFFE ID',
  'guard[path]':
    'a path with broken, doubled or control escapes, or that two programs read differently',
  'guard[host]': 'a host that is no plain name or [IPv6] address with a port',
  'guard[method]': 'a method that neither is usual nor is named by a rule',
  'guard[x-forwarded-for]': 'X-Forwarded-For with anything but bare addresses',
  'guard[mutual-tls]': 'no certificate, where PeerAuthentication demands one',
}

const demands: Readonly<Record<Demand, string>> = {
  'plain-slashes': 'merge_slashes is off, for a DENY speaks of paths as they are sent',
  'tls-inspector': 'the TLS inspector reads server names',
  'client-address': 'use_remote_address is on, with as many trusted hops as the mesh has',
}

const addresses: Readonly<Record<AddressInput, string>> = {
  peer: "the peer's address",
  client: "the client's address",
  destination: 'the own address',
}

function inputText(input: Input): string {
  switch (input.kind) {
    case 'peer':
      return 'the caller'
    case 'port':
      return 'the port'
    case 'sni':
      return 'the server name'
    case 'header':
      return input.name.startsWith(':') ? `the ${input.name.slice(1)}` : `header ${input.name}`
  }
}

const verbs = { exact: 'is', prefix: 'starts with', suffix: 'ends with', contains: 'contains' }

function comparisonText(comparison: Comparison): string {
  if (comparison.how === 'regex') {
    return comparison.text === '\\C*' ? 'is there' : `matches ${comparison.text}`
  }
  const { how, text, ignoresCase } = comparison
  return `${verbs[how]} ${JSON.stringify(text)}${ignoresCase ? ' in any case' : ''}`
}

const wrapped = (it: Predicate) =>
  it.kind === 'all' || it.kind === 'any' ? `(${predicateText(it)})` : predicateText(it)

export function predicateText(predicate: Predicate): string {
  switch (predicate.kind) {
    case 'text':
      return `${inputText(predicate.input)} ${comparisonText(predicate.comparison)}`
    case 'address': {
      const blocks = predicate.blocks.map(({ address, prefix }) => `${address}/${prefix}`)
      return `${addresses[predicate.input]} is in ${blocks.join(', ')}`
    }
    case 'all':
      return predicate.of.map(wrapped).join(' and ')
    case 'any':
      return predicate.of.map(wrapped).join(' or ')
    case 'not':
      return `not ${wrapped(predicate.of)}`
  }
}

const bounds = { exact: 'is', prefix: 'starts with' }

/** `ends` says what it means that no rule held. */
function linesOf(tree: Tree, ends: string): readonly string[] {
  const indented = (inner: Tree) => linesOf(inner, ends).map((line) => `  ${line}`)
  switch (tree.kind) {
    case 'end':
      return [tree.name === 'none' ? ends : `${tree.action} ${tree.name}`]
    case 'list':
      return [
        ...tree.rules.map(({ name, when }) => `${tree.action} ${name} when ${predicateText(when)}`),
        ...linesOf(tree.otherwise, ends),
      ]
    case 'map':
      return [
        ...[...tree.branches].flatMap(([key, branch]) => [
          `when ${inputText(tree.input)} ${bounds[tree.how]} ${JSON.stringify(key)}`,
          ...indented(branch),
        ]),
        ...linesOf(tree.otherwise, ends),
      ]
  }
}

function guardLines(tree: Tree): readonly string[] {
  if (tree.kind !== 'list') return linesOf(tree, 'pass on')
  return [...tree.rules.map(({ name }) => `DENY ${name}: ${guards[name] ?? ''}`), 'pass on']
}

const placeText = ({ policy, rule, place }: Remark) =>
  rule === undefined ? `${policy} at ${place}` : `${policy}, rule ${rule} at ${place}`

const refusedText = (it: Refused) =>
  `${placeText(it)}: ${it.why}${it.isHarmless ? ' (no decision is another one without it)' : ''}`

function part(title: string, lines: readonly string[]): string[] {
  return lines.length === 0 ? [] : [title, ...lines.map((line) => `  ${line}`)]
}

/** One line for each rule, with what was refused and what differs. */
export function loweredText(lowered: Lowered): string {
  const { guard, deny, allow, refused, differences, needsAuthz } = lowered
  const atListener = lowered.demands.map((it) => demands[it])
  return [
    needsAuthz
      ? 'the agent has to be asked (ext_authz): not everything can be decided by Envoy alone'
      : 'Envoy decides alone',
    ...part('guard', guardLines(guard)),
    ...part('deny', linesOf(deny, 'pass on')),
    ...part(
      needsAuthz ? 'allow (not in force: the agent decides)' : 'allow',
      linesOf(allow, 'DENY all others'),
    ),
    ...part('refused', refused.map(refusedText)),
    ...part(
      'not as written',
      differences.map((it) => `${placeText(it)}: ${it.why}`),
    ),
    ...part('at the listener', atListener),
  ].join('\n')
}
