// Opens an authority's state: store, keys, registry, rules. No listener yet.
import { readFileSync } from 'node:fs'
import { type Clock, systemClock } from '../runtime/clock.ts'
import type { SqliteOptions } from '../runtime/db/sqlite.ts'
import type { Log } from '../runtime/log.ts'
import { type Tracer, tracesNothing } from '../runtime/tracing/span.ts'
import { parseCertificate } from '../spiffe/certificate.ts'
import { explain, IdentityError } from '../spiffe/errors.ts'
import { parsePem } from '../spiffe/pem.ts'
import { openAcknowledgements } from './acknowledgements.ts'
import type { NodeAttestor } from './attestors/attestor.ts'
import { interruptedJoin, interruptedJoinAttestor } from './attestors/interrupted-join.ts'
import { joinTokenAttestor } from './attestors/join-token.ts'
import { x509PopAttestor } from './attestors/x509-pop.ts'
import { openAuthorities } from './authorities/authorities.ts'
import { keysInStore, openKeyFolder } from './authorities/keys.ts'
import type { Authority } from './authority.ts'
import { createCallers } from './callers.ts'
import { type CaConfig, lifetimesOf } from './config.ts'
import { createEndpoints } from './endpoints.ts'
import { openEnforcement } from './enforcement.ts'
import { createForeignBundles, type ForeignBundlesOptions } from './foreign-bundles.ts'
import type { IssueSteps } from './issue.ts'
import { type Asked, createIssuing } from './issuing.ts'
import { openIstio } from './istio/open.ts'
import { createPolicyTraces } from './policy-traces.ts'
import { openRegistry } from './registry.ts'
import { createRevocation } from './revocation.ts'
import { isInitialised, keysFolder, replicaOf, storePath, unlockingSecret } from './state-folder.ts'
import type { AuthorityKind } from './store/model.ts'
import { openStore } from './store/open.ts'
import type { Store } from './store/store.ts'

export interface OpenOptions {
  readonly log: Log
  readonly clock?: Clock
  /** see IssueSteps */
  readonly between?: NonNullable<IssueSteps['between']>
  /** limits of the database, for tests of a full disk */
  readonly database?: SqliteOptions
  /** nobody traces when left out */
  readonly tracer?: Tracer
  /** see IssuingOptions */
  readonly onAsked?: (asked: Asked) => void
}

/** Its authorities are read once, at the start. Throws ERR_CONFIG. */
function x509Pop({ trustDomain, attestors }: CaConfig, clock: Clock): [string, NodeAttestor][] {
  if (attestors.x509pop === undefined) return []
  const { bundle: file, agentPath } = attestors.x509pop
  try {
    const roots = parsePem(readFileSync(file, 'utf8'), 'CERTIFICATE', file).map(parseCertificate)
    return [['x509pop', x509PopAttestor({ trustDomain, clock, roots, agentPath })]]
  } catch (cause) {
    const message = `attestors.x509pop.bundle: cannot read ${file}: ${explain(cause)}`
    throw new IdentityError('ERR_CONFIG', message, { cause })
  }
}

/** Who vouches for https_web endpoints, read once, at the start. Throws ERR_CONFIG. */
function endpointsOfTheWeb({ federation }: CaConfig): ForeignBundlesOptions['web'] {
  const { privateAddresses, roots: file } = federation
  if (file === undefined) return { privateAddresses }
  try {
    const roots = readFileSync(file, 'utf8')
    parsePem(roots, 'CERTIFICATE', file)
    return { privateAddresses, roots }
  } catch (cause) {
    const message = `federation.roots: cannot read ${file}: ${explain(cause)}`
    throw new IdentityError('ERR_CONFIG', message, { cause })
  }
}

function storeOf(
  config: CaConfig,
  { database, log, clock = systemClock }: OpenOptions,
): Promise<Store> {
  const { store: url, state, trustDomain } = config
  const location =
    url === undefined
      ? { path: storePath(state), sqlite: database ?? {} }
      : { url, onCommit: database?.onCommit }
  const onTrouble = (error: unknown) =>
    log.error({ err: error }, 'what the store holds is not taken in yet; tried again')
  return openStore(location, { trustDomain, clock, replica: replicaOf(config), onTrouble })
}

/** Opens what `prepareState` laid out; makes the first X.509 authority when there is none. */
export async function openAuthority(
  config: CaConfig,
  options: OpenOptions,
): Promise<Authority & AsyncDisposable> {
  const { log, clock = systemClock, between, onAsked, tracer = tracesNothing } = options
  const { trustDomain, state, authorityLifetime: lifetime } = config
  const secret = unlockingSecret(config)
  const web = endpointsOfTheWeb(config)
  await using undo = new AsyncDisposableStack()
  const store = undo.use(await storeOf(config, options))
  // the keys of tokens are everybody's; what signs certificates stays with its replica
  const keys = (kind: AuthorityKind) =>
    store.isShared && kind !== 'x509'
      ? keysInStore(secret, kind)
      : openKeyFolder(keysFolder(state), secret, kind)
  // before the registry: who is told of a new bundle by that one finds it here
  const authorities = undo.use(
    await openAuthorities({
      ...{ trustDomain, store, keys, clock, lifetime },
      isKnown: async (sequence) => (await acknowledgements.laggards(sequence)).length === 0,
    }),
  )
  const registry = undo.use(await openRegistry(store, trustDomain))
  const { agents } = registry
  const acknowledgements = await openAcknowledgements({
    ...{ clock, store },
    isAgent: (id) => agents.get(id)?.banned === false,
    sequence: () => authorities.sequence,
  })
  const enforcement = await openEnforcement({ store, acknowledgements, log })
  const endpoints = createEndpoints({ store, registry, acknowledgements, clock, log })
  const now = () => clock.now()
  const serverNames = config.istio?.serverNames ?? []
  const rules = { trustDomain, registry, now, serverNames, lifetimes: lifetimesOf(config) }
  const { issuance: issued, federation } = store
  const issuing = createIssuing({
    clock,
    store,
    authorities,
    rules,
    log,
    tracer,
    trustDomain,
    onAsked: (asked) => onAsked?.(asked),
    ...(between === undefined ? {} : { between }),
  })
  const opened = undo.move()
  return {
    ...{ trustDomain, state, clock, store, registry, authorities },
    ...{ acknowledgements, enforcement, endpoints },
    policyTraces: createPolicyTraces(tracer, clock),
    callers: createCallers({
      ...{ registry, table: store.agents, now },
      isTrusted: (authorityId) => authorities.all().some(({ id }) => id === authorityId),
    }),
    revocation: createRevocation({ registry, authorities, issued, shared: store.denyRules, clock }),
    foreignBundles: createForeignBundles({ own: authorities.bundle, federation, clock, log, web }),
    istio: openIstio(config, { clock, log, issued, denyRules: registry.denyRules }),
    attestors: new Map([
      ['join_token', joinTokenAttestor(trustDomain, clock)],
      [interruptedJoin, interruptedJoinAttestor({ trustDomain, clock, agents, issued })],
      ...x509Pop(config, clock),
    ]),
    ...issuing,
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  }
}

/** Throws ERR_CONFIG with the next step when there is no state yet. */
export function demandInitialised(config: CaConfig, file: string): void {
  if (isInitialised(config)) return
  throw new IdentityError(
    'ERR_CONFIG',
    `${config.state} holds no authority yet; run: castellan ca init --config ${file}`,
  )
}
