// Who calls, and what each class of caller may do: one table, everything else is refused.
import type { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import type { CallContext } from '../runtime/grpc/service.ts'
import { methodName } from '../runtime/grpc/service.ts'
import { peerChain } from '../runtime/tls-server.ts'
import type { BundleSource } from '../spiffe/bundle.ts'
import { parseCertificate, type Serial } from '../spiffe/certificate.ts'
import { denialText, presentedOf } from '../spiffe/deny-list.ts'
import { IdentityError } from '../spiffe/errors.ts'
import { isBelow, type SpiffeId } from '../spiffe/id.ts'
import { verifySvid } from '../spiffe/svid.ts'
import { type Attested, vouch } from './attestors/attestor.ts'
import type { Registry } from './registry.ts'
import type { AgentRow, EntryRow } from './store/model.ts'
import type { AgentTable } from './store/store.ts'

/** What a connection proved when it was opened. */
export type Peer =
  | { readonly kind: 'local' }
  | { readonly kind: 'anonymous'; readonly address: string }
  | {
      readonly kind: 'svid'
      readonly id: SpiffeId
      readonly serial: Serial
      /** those that signed for it */
      readonly authorityIds: readonly string[]
      /** milliseconds since the epoch */
      readonly notAfter: number
      readonly address: string
    }

export type CallerClass = 'anyone' | 'local' | 'agent' | 'admin' | 'downstream'

const administration = ['local', 'admin'] as const

/** Rows for methods that are administration, all of them. */
function allOf(
  service: string,
  methods: readonly string[],
): Record<string, readonly CallerClass[]> {
  return Object.fromEntries(methods.map((method) => [`${service}/${method}`, administration]))
}

/** Method → who may call it. A method without a row is refused to everybody. */
export const callersOf: Readonly<Record<string, readonly CallerClass[]>> = {
  'spire.api.server.agent.v1.Agent/AttestAgent': ['anyone'],
  'spire.api.server.agent.v1.Agent/RenewAgent': ['agent'],
  'spire.api.server.agent.v1.Agent/PostStatus': ['agent'],
  'spire.api.server.agent.v1.Agent/CountAgents': administration,
  'spire.api.server.agent.v1.Agent/ListAgents': administration,
  'spire.api.server.agent.v1.Agent/GetAgent': administration,
  'spire.api.server.agent.v1.Agent/DeleteAgent': administration,
  'spire.api.server.agent.v1.Agent/BanAgent': administration,
  'spire.api.server.agent.v1.Agent/CreateJoinToken': administration,
  'spire.api.server.entry.v1.Entry/CountEntries': administration,
  'spire.api.server.entry.v1.Entry/ListEntries': administration,
  'spire.api.server.entry.v1.Entry/GetEntry': administration,
  'spire.api.server.entry.v1.Entry/BatchCreateEntry': administration,
  'spire.api.server.entry.v1.Entry/BatchUpdateEntry': administration,
  'spire.api.server.entry.v1.Entry/BatchDeleteEntry': administration,
  'spire.api.server.entry.v1.Entry/GetAuthorizedEntries': ['agent'],
  'spire.api.server.entry.v1.Entry/SyncAuthorizedEntries': ['agent'],
  'spire.api.server.svid.v1.SVID/MintX509SVID': administration,
  'spire.api.server.svid.v1.SVID/MintJWTSVID': administration,
  'spire.api.server.svid.v1.SVID/MintWITSVID': administration,
  'spire.api.server.svid.v1.SVID/BatchNewX509SVID': ['agent'],
  'spire.api.server.svid.v1.SVID/NewJWTSVID': ['agent'],
  'spire.api.server.svid.v1.SVID/BatchNewWITSVID': ['agent'],
  'spire.api.server.svid.v1.SVID/NewDownstreamX509CA': ['downstream'],
  'spire.api.server.bundle.v1.Bundle/GetBundle': ['anyone'],
  'spire.api.server.bundle.v1.Bundle/CountBundles': administration,
  'spire.api.server.bundle.v1.Bundle/AppendBundle': administration,
  'spire.api.server.bundle.v1.Bundle/PublishJWTAuthority': ['downstream'],
  'spire.api.server.bundle.v1.Bundle/PublishWITAuthority': ['downstream'],
  'spire.api.server.bundle.v1.Bundle/ListFederatedBundles': administration,
  'spire.api.server.bundle.v1.Bundle/GetFederatedBundle': [...administration, 'agent'],
  'spire.api.server.bundle.v1.Bundle/BatchCreateFederatedBundle': administration,
  'spire.api.server.bundle.v1.Bundle/BatchUpdateFederatedBundle': administration,
  'spire.api.server.bundle.v1.Bundle/BatchSetFederatedBundle': administration,
  'spire.api.server.bundle.v1.Bundle/BatchDeleteFederatedBundle': administration,
  ...allOf('spire.api.server.trustdomain.v1.TrustDomain', [
    'ListFederationRelationships',
    'GetFederationRelationship',
    'BatchCreateFederationRelationship',
    'BatchUpdateFederationRelationship',
    'BatchDeleteFederationRelationship',
    'RefreshBundle',
  ]),
  ...allOf('spire.api.server.localauthority.v1.LocalAuthority', [
    ...['X509', 'JWT', 'WIT'].flatMap((kind) => [
      `Get${kind}AuthorityState`,
      `Prepare${kind}Authority`,
      `Activate${kind}Authority`,
      `Taint${kind}Authority`,
      `Revoke${kind}Authority`,
    ]),
    'TaintX509UpstreamAuthority',
    'RevokeX509UpstreamAuthority',
  ]),
  ...allOf('spire.api.server.logger.v1.Logger', ['GetLogger', 'SetLogLevel', 'ResetLogLevel']),
  ...allOf('spire.api.server.debug.v1.Debug', ['GetInfo']),
  // its callers prove themselves in the call: ca/istio/callers.ts
  'istio.v1.auth.IstioCertificateService/CreateCertificate': ['anyone'],
  'castellan.control.v1.Control/Subscribe': ['agent'],
  ...allOf('castellan.authority.v1.Authorities', ['GetStatus', 'Activate', 'Revoke', 'Retire']),
  ...allOf('castellan.deny.v1.DenyRules', ['AddRule', 'ListRules', 'RemoveRule']),
  ...allOf('castellan.entry.v1.Labels', ['ListLabels', 'UpdateLabels']),
  ...allOf('castellan.records.v1.Records', ['ListIssued']),
  'castellan.records.v1.Records/Backup': ['local'],
  ...allOf('castellan.policy.v1.Policies', [
    ...['GetPolicies', 'ApplyPolicies', 'ListVersions', 'RollbackPolicies', 'DeletePolicy'],
    'WatchEnforcement',
  ]),
  'grpc.health.v1.Health/Check': ['anyone'],
  'grpc.health.v1.Health/Watch': ['anyone'],
  'grpc.health.v1.Health/List': ['anyone'],
  'grpc.reflection.v1.ServerReflection/ServerReflectionInfo': administration,
  'grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo': administration,
}

/**
 * The peer of a new connection. Throws ERR_UNTRUSTED for a certificate that does not verify; one that has
 * merely expired is let in, so that its agent can be told so.
 */
export function peerOf(socket: Socket, bundles: BundleSource, now: number): Peer {
  if (!(socket instanceof TLSSocket)) return { kind: 'local' }
  const address = socket.remoteAddress ?? ''
  const chain = peerChain(socket)
  const [first] = chain
  if (first === undefined) return { kind: 'anonymous', address }
  const { notAfter } = parseCertificate(first)
  const svid = verifySvid(chain, bundles, { now: Math.min(now, notAfter) })
  return { kind: 'svid', ...presentedOf(svid), notAfter, address }
}

export interface Callers {
  /** Why a connection that was good is so no more; undefined while it is. */
  denialOf(peer: Peer): string | undefined
  /** Refuses the call unless its table row holds a class of the caller. */
  authorize(context: CallContext<Peer>): Promise<void>
  /** The calling agent, vouched for. Throws the reason why it is none (ERR_AGENT_…). */
  agent(context: CallContext<Peer>): { row: AgentRow; attested: Attested }
  /** The calling administrator, vouched for. */
  administrator(context: CallContext<Peer>): Attested
  /** The entry by which the caller may have an authority below this one. Throws ERR_DENIED. */
  downstream(context: Pick<CallContext<Peer>, 'peer'>): EntryRow
}

export interface CallersOptions {
  readonly registry: Registry
  readonly table: AgentTable
  readonly now: () => number
  /** Whether an X.509 authority is in the bundle still. */
  readonly isTrusted: (authorityId: string) => boolean
}

export function nameOf(peer: Peer): string {
  return peer.kind === 'svid' ? peer.id : peer.kind
}

/** By an authority of ours itself: those below it sign for workloads, not for who may ask us for more. */
export function isDirect(peer: Peer): peer is Extract<Peer, { kind: 'svid' }> {
  return peer.kind === 'svid' && peer.authorityIds.length === 1
}

function downstreamEntry({ entries }: Registry, peer: Peer, now: number): EntryRow {
  const own = isDirect(peer) ? entries.bySpiffeId(peer.id, now) : []
  const entry = own.find(({ downstream }) => downstream)
  if (entry !== undefined) return entry
  throw new IdentityError('ERR_DENIED', `${nameOf(peer)} is no downstream authority`)
}

interface KnownAgents {
  readonly agents: Map<SpiffeId, AgentRow>
  readonly table: AgentTable
}

/** What another replica wrote a moment ago may not be in memory yet: only the store refuses for good. */
async function lookAgain({ agents, table }: KnownAgents, peer: Peer): Promise<void> {
  if (peer.kind !== 'svid') return
  const known = agents.get(peer.id)
  if (known?.serial === peer.serial || known?.pendingSerial === peer.serial) return
  const row = await table.get(peer.id)
  if (row !== undefined) agents.set(row.id, row)
}

async function promote(
  { agents, table }: KnownAgents,
  agent: AgentRow,
  serial: Serial,
): Promise<void> {
  agents.set(agent.id, { ...agent, serial, pendingSerial: '' })
  await table.promote(agent.id, serial)
}

export function createCallers({ registry, table, now, isTrusted }: CallersOptions): Callers {
  const { agents, entries } = registry
  const known: KnownAgents = { agents, table }

  function denialOf(peer: Peer): string | undefined {
    if (peer.kind !== 'svid') return undefined
    const root = peer.authorityIds.at(-1) ?? ''
    if (!isTrusted(root)) return `authority ${root} is not trusted any more`
    const rule = registry.denyList().against(peer, now())
    return rule === undefined ? undefined : denialText(rule)
  }

  /** The attested agent behind a connection; the first use of a renewed certificate makes it the current one. */
  function agentOf(peer: Peer): AgentRow {
    if (!isDirect(peer) || !isBelow(peer.id, '/spire/agent')) {
      throw new IdentityError('ERR_DENIED', `${nameOf(peer)} is no agent`)
    }
    const agent = agents.get(peer.id)
    if (agent === undefined)
      throw new IdentityError('ERR_AGENT_NOT_ATTESTED', `${peer.id} is not attested`)
    if (agent.banned) throw new IdentityError('ERR_AGENT_BANNED', `${peer.id} is banned`)
    if (peer.notAfter < now())
      throw new IdentityError('ERR_AGENT_EXPIRED', `the certificate of ${peer.id} has expired`)
    if (peer.serial === agent.serial || peer.serial === agent.pendingSerial) return agent
    throw new IdentityError(
      'ERR_AGENT_NOT_ACTIVE',
      `certificate ${peer.serial} of ${peer.id} was replaced`,
    )
  }

  const isMarked = (peer: Peer, mark: 'admin' | 'downstream') =>
    isDirect(peer) &&
    peer.notAfter >= now() &&
    entries.bySpiffeId(peer.id, now()).some((entry) => entry[mark])

  async function belongs(peer: Peer, to: CallerClass): Promise<boolean> {
    switch (to) {
      case 'anyone':
        return true
      case 'local':
        return peer.kind === 'local'
      case 'admin':
      case 'downstream':
        return isMarked(peer, to)
      case 'agent': {
        await lookAgain(known, peer)
        const agent = agentOf(peer)
        if (peer.kind === 'svid' && peer.serial === agent.pendingSerial)
          await promote(known, agent, peer.serial)
        return true
      }
    }
  }

  return {
    denialOf,
    async authorize({ method, peer }) {
      const denial = denialOf(peer)
      if (denial !== undefined) throw new IdentityError('ERR_DENIED', denial)
      const name = methodName(method)
      const classes = Object.hasOwn(callersOf, name) ? (callersOf[name] ?? []) : []
      for (const wanted of classes) if (await belongs(peer, wanted)) return
      throw new IdentityError('ERR_DENIED', `${nameOf(peer)} may not call ${name}`)
    },
    agent({ peer }) {
      const row = agentOf(peer)
      return { row, attested: vouch({ kind: 'agent', agent: row }) }
    },
    downstream: ({ peer }) => downstreamEntry(registry, peer, now()),
    administrator({ peer }) {
      if (peer.kind !== 'local' && !isMarked(peer, 'admin')) {
        throw new IdentityError('ERR_DENIED', `${nameOf(peer)} is no administrator`)
      }
      return vouch({ kind: 'administrator', name: nameOf(peer) })
    },
  }
}
