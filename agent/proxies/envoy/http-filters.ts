// The HTTP filters of an inbound listener. In the listener they refuse everything; what they let pass stands in the
// routes, where a change reaches connections that are open (proxies.md §2.5).
import { create } from '@bufbuild/protobuf'
import { type Any, anyPack } from '@bufbuild/protobuf/wkt'
import { identityGuard } from '../../../policies/lower/guard.ts'
import { followedBy, type Tree, treeOf } from '../../../policies/lower/tree.ts'
import { ApiVersion } from '../../../proto/gen/envoy/config/core/v3/config_source_pb.js'
import type { GrpcServiceSchema } from '../../../proto/gen/envoy/config/core/v3/grpc_service_pb.js'
import {
  ExtAuthzPerRouteSchema,
  ExtAuthzSchema,
} from '../../../proto/gen/envoy/extensions/filters/http/ext_authz/v3/ext_authz_pb.js'
import {
  RBACPerRouteSchema,
  RBACSchema,
} from '../../../proto/gen/envoy/extensions/filters/http/rbac/v3/rbac_pb.js'
import { RouterSchema } from '../../../proto/gen/envoy/extensions/filters/http/router/v3/router_pb.js'
import type { HttpFilterSchema } from '../../../proto/gen/envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager_pb.js'
import { StatusCode } from '../../../proto/gen/envoy/type/v3/http_status_pb.js'
import { MatcherSchema } from '../../../proto/gen/xds/type/matcher/v3/matcher_pb.js'
import type { SpiffeId } from '../../../spiffe/id.ts'
import { extensions } from '../../authz/check-question.ts'
import { decisionsCluster } from './clusters.ts'
import type { Enforcement } from './enforcement.ts'
import { durationOf, type Init, typed } from './extension.ts'
import { matcherOf } from './matcher.ts'

type HttpFilter = Init<typeof HttpFilterSchema>

const authzName = 'envoy.filters.http.ext_authz'
/** each costs a request as much as a few rules do: what can stand in one does */
const rbacNames = ['castellan_deny', 'castellan_judge'] as const
type RbacName = (typeof rbacNames)[number]

const nobody: Tree = { kind: 'end', action: 'DENY', name: 'none' }
const everybody: Tree = { kind: 'end', action: 'ALLOW', name: 'none' }
/** Whoever shows one SPIFFE ID, and it is no odd one. */
const identified = treeOf([identityGuard], { action: 'DENY', otherwise: everybody })

/** milliseconds; the last attempt of those below included */
const patience = 1000

/**
 * What hides that one agent hands over to the next: nothing is sent twice that was answered.
 * The limits of the cluster have to allow it.
 */
export const agentService: Init<typeof GrpcServiceSchema> = {
  targetSpecifier: { case: 'envoyGrpc', value: { clusterName: decisionsCluster } },
  timeout: durationOf(patience),
  retryPolicy: {
    // more than there is time for: they wait for 12 ms, then for 125 ms in the middle
    numRetries: 100,
    retryOn: 'connect-failure,refused-stream,reset,unavailable,cancelled,gateway-error',
    retryBackOff: { baseInterval: durationOf(25), maxInterval: durationOf(250) },
  },
}

function authz(): HttpFilter {
  return typed(authzName, ExtAuthzSchema, {
    services: { case: 'grpcService', value: agentService },
    transportApiVersion: ApiVersion.V3,
    failureModeAllow: false,
    statusOnError: { code: StatusCode.ServiceUnavailable },
    includePeerCertificate: true,
    includeTlsSession: true,
    validateMutations: true,
    statPrefix: 'castellan',
    // repeated fields and bytes that are no UTF-8 as they came
    encodeRawHeaders: true,
    // the path that was decided about is the one that is forwarded
    decoderHeaderMutationRules: { disallowSystem: true, disallowIsError: true },
  })
}

const rbac = (tree: Tree, name: string) =>
  create(RBACSchema, { matcher: create(MatcherSchema, matcherOf(tree)), rulesStatPrefix: name })

/** In the order in which they are asked. */
export function httpFilters(canAsk: boolean): HttpFilter[] {
  return [
    ...rbacNames.map((name) => typed(name, RBACSchema, rbac(nobody, name))),
    ...(canAsk ? [authz()] : []),
    typed('envoy.filters.http.router', RouterSchema, {}),
  ]
}

/** Identities of the deny-list: Envoy does not ask about a connection twice. */
function revokedTree(ids: readonly SpiffeId[]): Tree {
  if (ids.length === 0) return everybody
  const denied: Tree = { kind: 'end', action: 'DENY', name: 'deny-list' }
  return {
    kind: 'map',
    input: { kind: 'peer' },
    how: 'exact',
    branches: new Map(ids.map((id) => [id, denied])),
    otherwise: everybody,
  }
}

function treesOf(
  { by, lowered }: Enforcement,
  revoked: readonly SpiffeId[],
): Record<RbacName, Tree> {
  const { guard, deny, allow } = lowered
  const rest = by === 'native' ? allow : by === 'asked' ? everybody : nobody
  return {
    // by itself: each caller that it names would need all that follows once more
    castellan_deny: deny,
    castellan_judge: followedBy(revokedTree(revoked), followedBy(guard, rest)),
  }
}

/** What the agent is told beside the request: the workload, as this listener leads to it. */
export interface Told {
  readonly port: number
  readonly backend: string | undefined
  readonly identityHeader: string
}

function checkSettings({ port, backend, identityHeader }: Told): Any {
  return anyPack(
    ExtAuthzPerRouteSchema,
    create(ExtAuthzPerRouteSchema, {
      override: {
        case: 'checkSettings',
        value: {
          contextExtensions: {
            [extensions.port]: String(port),
            [extensions.identityHeader]: identityHeader,
            // as the listener does that uses the remote address
            [extensions.forwardedFor]: 'appended',
            ...(backend === undefined ? {} : { [extensions.backend]: backend }),
          },
        },
      },
    }),
  )
}

const unasked = anyPack(
  ExtAuthzPerRouteSchema,
  create(ExtAuthzPerRouteSchema, { override: { case: 'disabled', value: true } }),
)

const off = anyPack(RBACPerRouteSchema, create(RBACPerRouteSchema, {}))

/** A filter that lets everybody pass is switched off: asking it costs as much as if it had something to say. */
function perRoute(tree: Tree, name: string): Any {
  if (tree.kind === 'end' && tree.action === 'ALLOW') return off
  return anyPack(RBACPerRouteSchema, create(RBACPerRouteSchema, { rbac: rbac(tree, name) }))
}

export interface Judged {
  readonly enforcement: Enforcement
  readonly revoked: readonly SpiffeId[]
  readonly canAsk: boolean
  readonly told: Told
}

/** What the filters do for the requests of a virtual host. */
export function judged({ enforcement, revoked, canAsk, told }: Judged): Record<string, Any> {
  const trees = treesOf(enforcement, revoked)
  const filters = rbacNames.map((name) => [name, perRoute(trees[name], name)] as const)
  const asking = enforcement.by === 'asked' ? checkSettings(told) : unasked
  return { ...Object.fromEntries(filters), ...(canAsk ? { [authzName]: asking } : {}) }
}

export interface Unjudged extends Pick<Judged, 'canAsk' | 'revoked'> {
  /** whether callers have shown a certificate: Envoy gives up where it is asked for nobody's */
  readonly hasPeer: boolean
}

/** The same for what passes without a decision, but not for those on the deny-list or of two names. */
export function unjudged({ canAsk, hasPeer, revoked }: Unjudged): Record<string, Any> {
  const trees: Readonly<Record<RbacName, Tree>> = {
    castellan_deny: everybody,
    castellan_judge: followedBy(revokedTree(revoked), hasPeer ? identified : everybody),
  }
  const filters = Object.entries(trees).map(([name, tree]) => [name, perRoute(tree, name)] as const)
  return { ...Object.fromEntries(filters), ...(canAsk ? { [authzName]: unasked } : {}) }
}
