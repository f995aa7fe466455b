// Opens an authority's state: store, keys, registry, rules. No listener yet.
import { readFileSync } from 'node:fs'
import { type Clock, systemClock } from '../runtime/clock.ts'
import type { DatabaseOptions } from '../runtime/db/sqlite.ts'
import type { Log } from '../runtime/log.ts'
import { parseCertificate } from '../spiffe/certificate.ts'
import { explain, IdentityError } from '../spiffe/errors.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import { parsePem } from '../spiffe/pem.ts'
import { createAcknowledgements } from './acknowledgements.ts'
import type { NodeAttestor } from './attestors/attestor.ts'
import { interruptedJoin, interruptedJoinAttestor } from './attestors/interrupted-join.ts'
import { joinTokenAttestor } from './attestors/join-token.ts'
import { x509PopAttestor } from './attestors/x509-pop.ts'
import { openAuthorities } from './authorities/authorities.ts'
import { openKeyFolder } from './authorities/keys.ts'
import type { Authority } from './authority.ts'
import { createCallers } from './callers.ts'
import { type CaConfig, lifetimesOf } from './config.ts'
import type { IssueSteps } from './issue.ts'
import { createIssuing } from './issuing.ts'
import { openIstio } from './istio/open.ts'
import { openRegistry } from './registry.ts'
import { createRevocation } from './revocation.ts'
import { isInitialised, keysFolder, storePath, unlockingSecret } from './state-folder.ts'
import { openSqliteStore } from './store/sqlite/store.ts'
import type { AuthorityKind } from './store/store.ts'

export interface OpenOptions {
  readonly log: Log
  readonly clock?: Clock
  /** see IssueSteps */
  readonly between?: NonNullable<IssueSteps['between']>
  /** limits of the database, for tests of a full disk */
  readonly database?: DatabaseOptions
  /** told of each delivered certificate */
  readonly onIssued?: (kind: string) => void
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

/** Opens what `prepareState` laid out; makes the first X.509 authority when there is none. */
export async function openAuthority(
  config: CaConfig,
  options: OpenOptions,
): Promise<Authority & AsyncDisposable> {
  const { log, clock = systemClock, between, onIssued } = options
  const { trustDomain, state, authorityLifetime: lifetime } = config
  const secret = unlockingSecret(config)
  await using undo = new AsyncDisposableStack()
  const store = undo.use(await openSqliteStore(storePath(state), trustDomain, options.database))
  const keys = (kind: AuthorityKind) => openKeyFolder(keysFolder(state), secret, kind)
  const registry = undo.use(openRegistry(store, trustDomain))
  const { agents } = registry
  const isAgent = (id: SpiffeId) => agents.get(id)?.banned === false
  const present = [...agents.values()].filter((it) => isAgent(it.id) && it.notAfter > clock.now())
  const known = present.map(({ id }) => id)
  const acknowledgements = createAcknowledgements(clock, isAgent, known)
  const authorities = await openAuthorities({
    trustDomain,
    table: store.authorities,
    keys,
    clock,
    lifetime,
    isKnown: (sequence) => acknowledgements.laggards(sequence).length === 0,
  })
  const now = () => clock.now()
  const serverNames = config.istio?.serverNames ?? []
  const rules = { trustDomain, registry, now, serverNames, lifetimes: lifetimesOf(config) }
  const { issuance: issued } = store
  const issuing = createIssuing({
    clock,
    store,
    authorities,
    rules,
    log,
    onIssued: (kind) => onIssued?.(kind),
    ...(between === undefined ? {} : { between }),
  })
  const opened = undo.move()
  return {
    trustDomain,
    state,
    clock,
    store,
    registry,
    authorities,
    acknowledgements,
    callers: createCallers({
      ...{ registry, table: store.agents, now },
      isTrusted: (authorityId) => authorities.all().some(({ id }) => id === authorityId),
    }),
    revocation: createRevocation({ registry, authorities, issued, clock }),
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
