// The data path of one sidecar: all listeners of a spec, from an identity source and what the mesh says.
import type { X509Source } from '../client/x509-source.ts'
import { startExpiry } from '../decisions/expiry.ts'
import type { Mesh } from '../decisions/mesh.ts'
import type { Tally } from '../decisions/tally.ts'
import { createBuckets } from '../policies/limits.ts'
import type { ProxySpec } from '../proxy-spec/spec.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Log } from '../runtime/log.ts'
import { IdentityError } from '../spiffe/errors.ts'
import { createAuthorizer } from './authorizer.ts'
import { createConnections } from './connections.ts'
import type { Core, Listener } from './core.ts'
import { followIdentity, type Identities } from './identity.ts'
import { startInbound } from './inbound.ts'
import { defaultLimits, type Limits } from './limits.ts'
import { startOutbound } from './outbound.ts'

export interface ServeOptions {
  /** its first context has to be there */
  readonly source: Pick<X509Source, 'current' | 'subscribe'>
  readonly mesh: Mesh
  readonly tally: Tally
  readonly log: Log
  readonly clock: Clock
  readonly limits?: Partial<Limits>
}

/** Disposing it drains. */
export interface Serving extends AsyncDisposable {
  readonly listeners: readonly Listener[]
  readonly identities: Identities
  /** live connections with peers, both directions */
  readonly connections: { readonly size: number }
}

type Parts = Pick<Core, 'tally' | 'log' | 'limits'>

async function startListeners(core: Core, spec: ProxySpec, started: Listener[]): Promise<void> {
  const identity = core.identities.current()
  if (identity === undefined) {
    throw new IdentityError('ERR_NO_IDENTITY', 'the workload has no usable SVID of that identity')
  }
  for (const [i, it] of spec.inbound.entries()) {
    started.push(await startInbound(core, identity, { spec: it, name: it.name ?? `inbound-${i}` }))
  }
  for (const [i, it] of spec.outbound.entries()) {
    started.push(await startOutbound(core, { spec: it, name: it.name ?? `outbound-${i}` }))
  }
}

function authorizersOf(spec: ProxySpec, { tally, log, limits }: Parts) {
  const { authorizers, identityHeader } = spec
  const { headerBytes } = limits
  return new Map(
    Object.entries(authorizers).map(([name, it]) => [
      name,
      createAuthorizer(it, {
        ...{ name, log, headerBytes, identityHeader },
        onFailure: () => tally.failed(),
      }),
    ]),
  )
}

export async function serve(spec: ProxySpec, options: ServeOptions): Promise<Serving> {
  const { source, mesh, tally, log, clock } = options
  const limits = { ...defaultLimits, ...options.limits }
  const authorizers = authorizersOf(spec, { tally, log, limits })
  const identities = followIdentity(source, { wanted: spec.identity, log, clock })
  const connections = createConnections({ identities, mesh, tally, clock, log, limits })
  const core: Core = {
    identities,
    mesh,
    connections,
    tally,
    log,
    clock,
    limits,
    identityHeader: spec.identityHeader,
    authorizers,
    buckets: createBuckets(),
  }
  const listeners: Listener[] = []
  const expiry = startExpiry({ mesh, clock, log })

  async function close(): Promise<void> {
    // 1. accept nothing more  2. let what is in flight finish  3. end the rest
    for (const listener of listeners) listener.stop()
    await expiry[Symbol.asyncDispose]()
    await connections[Symbol.asyncDispose]()
    for (const listener of listeners) await listener.close()
    for (const authorizer of authorizers.values()) authorizer[Symbol.dispose]()
    identities[Symbol.dispose]()
  }

  try {
    await startListeners(core, spec, listeners)
  } catch (error) {
    await close()
    throw error
  }
  for (const { name: listener, address, port } of listeners) {
    log.info({ listener, address, port }, 'listening')
  }
  let closing: Promise<void> | undefined
  return {
    listeners,
    identities,
    connections,
    [Symbol.asyncDispose]() {
      closing ??= close()
      return closing
    },
  }
}
