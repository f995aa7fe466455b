// castellan.workload.v1.AgentAdmin: what a person at the node may ask.
import type { MessageInitShape } from '@bufbuild/protobuf'
import { AgentAdmin, type AgentStatusSchema } from '../proto/gen/castellan/workload/v1/admin_pb.js'
import type { UnreadStream } from '../runtime/grpc/reading.ts'
import { type Service, service } from '../runtime/grpc/service.ts'
import { createLatest } from '../runtime/lifecycle.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Caller } from './attest/caller.ts'
import type { ExplainProcess } from './attest/explain.ts'
import type { DecisionServer } from './authz/start.ts'
import type { Core } from './core.ts'
import type { AgentEntry } from './entries.ts'
import type { FileWriter, SetStatus } from './files/writer.ts'
import type { Knowledge } from './knowledge.ts'
import type { ProxyRecord } from './proxies/ledger.ts'
import type { DrivenSpec } from './proxies/specs.ts'

export interface AdminOptions
  extends Pick<Core, 'config' | 'knowledge' | 'cache' | 'ledger' | 'proxies' | 'session' | 'disk'> {
  readonly explain: ExplainProcess
  readonly files: Pick<FileWriter, 'status' | 'onChange'>
  /** streams of the public socket that are late */
  readonly unread: () => readonly UnreadStream<Caller>[]
  /** undefined where nobody may ask it, and before it listens */
  readonly deciding: () => Pick<DecisionServer, 'connections' | 'processes' | 'phase'> | undefined
}

const fileSetMessage = (it: SetStatus) => ({
  folder: it.folder,
  spiffeId: it.id ?? '',
  notAfter: BigInt(it.notAfter ?? 0),
  version: it.version ?? '',
  trouble: it.trouble ?? '',
  missing: [...it.missing],
  untold: it.untold ?? '',
})

const unreadMessage = ({ method, peer, unreadFor }: UnreadStream<Caller>) => ({
  ...{ method, pid: peer.process.pid, uid: peer.process.uid },
  milliseconds: BigInt(Math.round(unreadFor)),
})

const proxyMessage = (it: ProxyRecord) => ({
  ...{ spiffeId: it.id ?? '', pid: it.pid, uid: it.uid, nodeId: it.node },
  resources: [...it.kinds].map(([kind, { told, taken, refusal }]) => ({
    ...{ kind, toldVersion: told, takenVersion: taken, refusal },
  })),
  policyVersion: it.policies,
  remarks: [...it.remarks],
})

/** Why nobody can speak as this identity here; empty when somebody can. */
function whyBarred(identity: SpiffeId, knowledge: Knowledge): string {
  if (!knowledge.isComplete()) return 'the agent has not heard from its authority yet'
  if (knowledge.isDenied(identity)) return 'its identity is on the deny-list'
  const hasEntry = [...knowledge.entries.values()].some(({ spiffeId }) => spiffeId === identity)
  return hasEntry ? '' : 'no entry of this node is for its identity'
}

const specMessage = ({ file, identity, trouble }: DrivenSpec, knowledge: Knowledge) => ({
  ...{ file, spiffeId: identity, trouble, barred: whyBarred(identity, knowledge) },
})

function decisionsMessage({ config, ledger, deciding }: AdminOptions) {
  const { decisions } = config
  if (decisions === undefined) return {}
  const { policies = 0n, refusal = '', allowed = 0n, denied = 0n } = ledger.own ?? {}
  const server = deciding()
  const { connections = 0, processes = 0 } = server ?? {}
  return {
    decisions: {
      ...{ socket: decisions.socket, policyVersion: policies, refusal, allowed, denied },
      ...{ connections, processes, phase: server?.phase() ?? 'starting' },
    },
  }
}

const mostNear = 10

/** How far entries are from a process with these selectors: those that apply, and the nearest that do not. */
function matchesOf(selectors: ReadonlySet<string>, knowledge: Knowledge) {
  const lacking = ({ selectors: wanted }: AgentEntry) => wanted.filter((it) => !selectors.has(it))
  const matched = knowledge.entriesFor(selectors)
  const ids = new Set(matched.map(({ id }) => id))
  const near = [...knowledge.entries.values()]
    .filter(({ id }) => !ids.has(id))
    .map((entry) => ({ entry, missing: lacking(entry) }))
    // who has nothing of it is not near; so it is with the aliases of this node
    .filter(({ entry, missing }) => missing.length < entry.selectors.length)
    .sort((a, b) => a.missing.length - b.missing.length)
    .slice(0, mostNear)
  const message = (entry: AgentEntry, missing: string[]) => ({
    entryId: entry.id,
    spiffeId: entry.spiffeId,
    missing,
    denied: knowledge.isDenied(entry.spiffeId),
  })
  return {
    matched: matched.map((entry) => message(entry, [])),
    near: near.map(({ entry, missing }) => message(entry, missing)),
  }
}

interface Parties {
  readonly source: string
  readonly destination: string
}

/** Of a caller or to a callee; of any where that is empty. */
function between<T extends Parties>(all: readonly T[], { source, destination }: Parties): T[] {
  return all.filter(
    (it) =>
      (source === '' || it.source === source) &&
      (destination === '' || it.destination === destination),
  )
}

function whatWasDecided(ledger: Core['ledger']) {
  return {
    listFlows: (asked: Parties) => ({
      flows: between(ledger.flows(), asked).sort((one, other) => Number(other.count - one.count)),
    }),
    listDenials({ limit, ...asked }: Parties & { readonly limit: number }) {
      const found = between(ledger.denials(), asked)
      return { denials: limit === 0 ? found : found.slice(0, limit) }
    },
  }
}

export function adminService(options: AdminOptions): Service<Caller> {
  const { knowledge, cache, ledger, proxies, session, disk, explain, files, unread } = options

  function status(): MessageInitShape<typeof AgentStatusSchema> {
    const { svid, trouble, unsaved } = session.status()
    const identities = [...cache.svids.values()].map((it) => ({
      spiffeId: it.id,
      entryId: it.entryId,
      serial: it.serial,
      notAfter: BigInt(it.notAfter),
      rotations: BigInt(it.rotations),
    }))
    const sidecars = [...ledger.sidecars].map(
      ({ id, pid, allowed, denied, vitals, acknowledged }) => ({
        spiffeId: id,
        pid,
        allowed,
        denied,
        acknowledgedVersion: acknowledged,
        ...(vitals === undefined ? {} : { vitals }),
      }),
    )
    return {
      agentId: svid?.id ?? '',
      agentSerial: svid?.serial ?? '',
      agentNotAfter: BigInt(svid?.notAfter ?? 0),
      connected: trouble === undefined,
      trouble: trouble ?? '',
      identities,
      sidecars,
      policyVersion: knowledge.policies()?.version ?? 0n,
      diskTrouble: disk.trouble() ?? unsaved ?? '',
      files: files.status().map(fileSetMessage),
      unread: unread().map(unreadMessage),
      proxies: [...proxies.proxies].map(proxyMessage),
      proxySpecs: proxies.specs().map((it) => specMessage(it, knowledge)),
      ...decisionsMessage(options),
    }
  }

  return service<typeof AgentAdmin, Caller>(AgentAdmin, {
    getStatus: () => status(),
    async *watchStatus(_, { signal }) {
      using wake = createLatest<true>(signal)
      using _knowledge = knowledge.onChange(() => wake.push(true))
      using _cache = cache.onChange(() => wake.push(true))
      using _proxies = proxies.onChange(() => wake.push(true))
      using _ledger = ledger.onChange(() => wake.push(true))
      using _session = session.onChange(() => wake.push(true))
      using _files = files.onChange(() => wake.push(true))
      wake.push(true)
      for await (const __ of wake) yield status()
      signal.throwIfAborted()
    },
    async explainProcess({ pid }, { signal }) {
      const { uid, gid, selectors, missing } = await explain(pid, { signal })
      const sorted = [...selectors].sort()
      return {
        uid,
        gid,
        selectors: sorted,
        absent: [...missing],
        ...matchesOf(selectors, knowledge),
      }
    },
    ...whatWasDecided(ledger),
  })
}
