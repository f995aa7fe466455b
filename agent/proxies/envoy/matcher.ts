// Trees of lowered rules as Envoy's unified matchers (xds.type.matcher.v3), with the actions of its RBAC filters.
import { create, type DescMessage, type MessageInitShape } from '@bufbuild/protobuf'
import { anyPack } from '@bufbuild/protobuf/wkt'
import type {
  AddressInput,
  Block,
  Comparison,
  Input,
  Predicate,
} from '../../../policies/lower/predicate.ts'
import type { Named, Tree, TreeAction } from '../../../policies/lower/tree.ts'
import { ActionSchema, RBAC_Action } from '../../../proto/gen/envoy/config/rbac/v3/rbac_pb.js'
import {
  DestinationIPInputSchema,
  DestinationPortInputSchema,
  DirectSourceIPInputSchema,
  ServerNameInputSchema,
  SourceIPInputSchema,
} from '../../../proto/gen/envoy/extensions/matching/common_inputs/network/v3/network_inputs_pb.js'
import { UriSanInputSchema } from '../../../proto/gen/envoy/extensions/matching/common_inputs/ssl/v3/ssl_inputs_pb.js'
import { IpSchema } from '../../../proto/gen/envoy/extensions/matching/input_matchers/ip/v3/ip_pb.js'
import { HttpRequestHeaderMatchInputSchema } from '../../../proto/gen/envoy/type/matcher/v3/http_inputs_pb.js'
import type { TypedExtensionConfig } from '../../../proto/gen/xds/core/v3/extension_pb.js'
import { TypedExtensionConfigSchema } from '../../../proto/gen/xds/core/v3/extension_pb.js'
import type {
  Matcher_MatcherList_PredicateSchema,
  Matcher_OnMatchSchema,
  MatcherSchema,
} from '../../../proto/gen/xds/type/matcher/v3/matcher_pb.js'
import type { StringMatcherSchema } from '../../../proto/gen/xds/type/matcher/v3/string_pb.js'

type MatcherInit = MessageInitShape<typeof MatcherSchema>
type OnMatchInit = MessageInitShape<typeof Matcher_OnMatchSchema>
type PredicateInit = MessageInitShape<typeof Matcher_MatcherList_PredicateSchema>
type StringMatcherInit = MessageInitShape<typeof StringMatcherSchema>

/** What stands packed in matchers, for whoever writes them as JSON. */
export const packedSchemas: readonly DescMessage[] = [
  ActionSchema,
  DestinationIPInputSchema,
  DestinationPortInputSchema,
  DirectSourceIPInputSchema,
  HttpRequestHeaderMatchInputSchema,
  IpSchema,
  ServerNameInputSchema,
  SourceIPInputSchema,
  UriSanInputSchema,
]

function extension<T extends DescMessage>(
  name: string,
  schema: T,
  value: MessageInitShape<T>,
): TypedExtensionConfig {
  return create(TypedExtensionConfigSchema, {
    name,
    typedConfig: anyPack(schema, create(schema, value)),
  })
}

const network = 'envoy.matching.inputs'
const peerInput = extension(`${network}.uri_san`, UriSanInputSchema, {})
const portInput = extension(`${network}.destination_port`, DestinationPortInputSchema, {})
const sniInput = extension(`${network}.server_name`, ServerNameInputSchema, {})

function inputOf(input: Input): TypedExtensionConfig {
  switch (input.kind) {
    case 'peer':
      return peerInput
    case 'port':
      return portInput
    case 'sni':
      return sniInput
    case 'header':
      return extension(`${network}.request_headers`, HttpRequestHeaderMatchInputSchema, {
        headerName: input.name,
      })
  }
}

const addressInputs: Readonly<Record<AddressInput, TypedExtensionConfig>> = {
  peer: extension(`${network}.direct_source_ip`, DirectSourceIPInputSchema, {}),
  client: extension(`${network}.source_ip`, SourceIPInputSchema, {}),
  destination: extension(`${network}.destination_ip`, DestinationIPInputSchema, {}),
}

function stringMatcher(comparison: Comparison): StringMatcherInit {
  if (comparison.how === 'regex') {
    const engineType = { case: 'googleRe2', value: {} } as const
    return { matchPattern: { case: 'safeRegex', value: { engineType, regex: comparison.text } } }
  }
  const { how, text: value, ignoresCase } = comparison
  return { matchPattern: { case: how, value }, ignoreCase: ignoresCase }
}

function ipMatcher(blocks: readonly Block[]): TypedExtensionConfig {
  const cidrRanges = blocks.map(({ address, prefix }) => ({
    addressPrefix: address,
    prefixLen: prefix,
  }))
  return extension('envoy.matching.matchers.ip', IpSchema, { cidrRanges, statPrefix: 'castellan' })
}

/** A list of one is no list to Envoy, and none at all is written as what it means. */
function joined(kind: 'all' | 'any', parts: readonly Predicate[]): PredicateInit {
  const [only] = parts
  if (only === undefined) throw new TypeError(`${kind} of nothing is no predicate`)
  if (parts.length === 1) return predicateOf(only)
  const value = { predicate: parts.map(predicateOf) }
  return kind === 'all'
    ? { matchType: { case: 'andMatcher', value } }
    : { matchType: { case: 'orMatcher', value } }
}

function predicateOf(predicate: Predicate): PredicateInit {
  switch (predicate.kind) {
    case 'text': {
      const input = inputOf(predicate.input)
      const matcher = { case: 'valueMatch', value: stringMatcher(predicate.comparison) } as const
      return { matchType: { case: 'singlePredicate', value: { input, matcher } } }
    }
    case 'address': {
      const input = addressInputs[predicate.input]
      const matcher = { case: 'customMatch', value: ipMatcher(predicate.blocks) } as const
      return { matchType: { case: 'singlePredicate', value: { input, matcher } } }
    }
    case 'all':
    case 'any':
      return joined(predicate.kind, predicate.of)
    case 'not':
      return { matchType: { case: 'notMatcher', value: predicateOf(predicate.of) } }
  }
}

function actionOf(action: TreeAction, name: string): OnMatchInit {
  const value = extension('action', ActionSchema, { name, action: RBAC_Action[action] })
  return { onMatch: { case: 'action', value } }
}

function onMatch(tree: Tree): OnMatchInit {
  if (tree.kind === 'end') return actionOf(tree.action, tree.name)
  return { onMatch: { case: 'matcher', value: matcherOf(tree) } }
}

const fieldMatcher = ({ name, when }: Named, action: TreeAction) => ({
  predicate: predicateOf(when),
  onMatch: actionOf(action, name),
})

/** Every way through it ends in an action. */
export function matcherOf(tree: Tree): MatcherInit {
  switch (tree.kind) {
    case 'end':
      return { onNoMatch: onMatch(tree) }
    case 'list': {
      const matchers = tree.rules.map((rule) => fieldMatcher(rule, tree.action))
      return {
        matcherType: { case: 'matcherList', value: { matchers } },
        onNoMatch: onMatch(tree.otherwise),
      }
    }
    case 'map': {
      const value = {
        map: Object.fromEntries([...tree.branches].map(([key, branch]) => [key, onMatch(branch)])),
      }
      const treeType =
        tree.how === 'exact'
          ? ({ case: 'exactMatchMap', value } as const)
          : ({ case: 'prefixMatchMap', value } as const)
      return {
        matcherType: { case: 'matcherTree', value: { input: inputOf(tree.input), treeType } },
        onNoMatch: onMatch(tree.otherwise),
      }
    }
  }
}
