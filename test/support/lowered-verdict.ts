// A second reading of lowered policies: the description itself, without Envoy's messages.
import type { Predicate } from '../../policies/lower/predicate.ts'
import type { Tree } from '../../policies/lower/tree.ts'
import {
  type EnvoyRequest,
  fullMatch,
  givingUp,
  headerText,
  inRange,
  peerText,
  type Verdict,
} from './envoy-rbac.ts'

type Text = Extract<Predicate, { kind: 'text' }>

function textOf(input: Text['input'], request: EnvoyRequest): string | undefined {
  switch (input.kind) {
    case 'peer':
      return peerText(request.uris)
    case 'header':
      return headerText(request, input.name)
    case 'port':
      return request.destinationPort?.toString()
    case 'sni':
      return request.serverName === '' ? undefined : request.serverName
  }
}

function textHolds({ input, comparison }: Text, request: EnvoyRequest): boolean {
  const value = textOf(input, request)
  if (value === undefined) return false
  if (comparison.how === 'regex') return fullMatch(comparison.text, value)
  const { ignoresCase, how, text } = comparison
  const [a, b] = ignoresCase ? [value.toLowerCase(), text.toLowerCase()] : [value, text]
  switch (how) {
    case 'exact':
      return a === b
    case 'prefix':
      return a.startsWith(b)
    case 'suffix':
      return a.endsWith(b)
    case 'contains':
      return a.includes(b)
  }
}

export function predicateHolds(predicate: Predicate, request: EnvoyRequest): boolean {
  switch (predicate.kind) {
    case 'text':
      return textHolds(predicate, request)
    case 'address': {
      const { directSourceIp: peer, sourceIp: client, destinationIp: destination } = request
      const address = { peer, client, destination }[predicate.input]
      if (address === undefined) return false
      return predicate.blocks.some((it) => inRange(address, it.address, it.prefix))
    }
    case 'all':
      return predicate.of.every((it) => predicateHolds(it, request))
    case 'any':
      return predicate.of.some((it) => predicateHolds(it, request))
    case 'not':
      return !predicateHolds(predicate.of, request)
  }
}

export const treeVerdict = (tree: Tree, request: EnvoyRequest): Verdict =>
  givingUp(() => walk(tree, request))

function walk(tree: Tree, request: EnvoyRequest): Verdict {
  switch (tree.kind) {
    case 'end':
      return { isAllowed: tree.action === 'ALLOW', name: tree.name }
    case 'list': {
      const rule = tree.rules.find(({ when }) => predicateHolds(when, request))
      if (rule === undefined) return walk(tree.otherwise, request)
      return { isAllowed: tree.action === 'ALLOW', name: rule.name }
    }
    case 'map': {
      const value = textOf(tree.input, request)
      if (value === undefined) return walk(tree.otherwise, request)
      const keys = [...tree.branches.keys()].filter((key) =>
        tree.how === 'exact' ? key === value : value.startsWith(key),
      )
      const longest = keys.sort((a, b) => b.length - a.length)[0] ?? ''
      return walk(tree.branches.get(longest) ?? tree.otherwise, request)
    }
  }
}
