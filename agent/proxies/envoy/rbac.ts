// Lowered policies as Envoy's RBAC filters, in the order in which they stand in a chain: the guard, who is denied,
// who is allowed. Without the last one an ext_authz filter has to follow.
import { create, createRegistry, toJson } from '@bufbuild/protobuf'
import { type Any, AnySchema, anyPack } from '@bufbuild/protobuf/wkt'
import type { Lowered } from '../../../policies/lower/lower.ts'
import type { Tree } from '../../../policies/lower/tree.ts'
import { RBACSchema as HttpRBACSchema } from '../../../proto/gen/envoy/extensions/filters/http/rbac/v3/rbac_pb.js'
import { RBACSchema as NetworkRBACSchema } from '../../../proto/gen/envoy/extensions/filters/network/rbac/v3/rbac_pb.js'
import { MatcherSchema } from '../../../proto/gen/xds/type/matcher/v3/matcher_pb.js'
import { matcherOf, packedSchemas } from './matcher.ts'

/** `name` and `typed_config` of an HTTP filter, or of a network filter. */
export interface RbacFilter {
  readonly name: string
  readonly typedConfig: Any
}

function configOf(tree: Tree, { protocol }: Lowered, name: string): Any {
  const matcher = create(MatcherSchema, matcherOf(tree))
  if (protocol === 'http') {
    return anyPack(HttpRBACSchema, create(HttpRBACSchema, { matcher, rulesStatPrefix: name }))
  }
  return anyPack(NetworkRBACSchema, create(NetworkRBACSchema, { matcher, statPrefix: name }))
}

const deniesNobody = (tree: Tree) => tree.kind === 'end' && tree.action === 'ALLOW'

/** Where `needsAuthz` says so, nobody is allowed here: the agent is asked about what is left. */
export function rbacFilters(lowered: Lowered): readonly RbacFilter[] {
  const { guard, deny, allow, needsAuthz } = lowered
  const denying = Object.entries({ guard, deny }).filter(([, tree]) => !deniesNobody(tree))
  const allowing: [string, Tree][] = needsAuthz ? [] : [['allow', allow]]
  return [...denying, ...allowing].map(([what, tree]) => {
    const name = `castellan_${what}`
    return { name, typedConfig: configOf(tree, lowered, name) }
  })
}

const registry = createRegistry(HttpRBACSchema, NetworkRBACSchema, ...packedSchemas)

/** As it stands in a configuration of Envoy. */
export function filterJson({ name, typedConfig }: RbacFilter) {
  return {
    name,
    typed_config: toJson(AnySchema, typedConfig, { registry, useProtoFieldName: true }),
  }
}
