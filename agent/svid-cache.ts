// The workloads' SVIDs, one for each entry: which are held, which are due.
import type { X509SVID } from '../proto/gen/spire/api/types/x509svid_pb.js'
import type { Clock } from '../runtime/clock.ts'
import { createTopic } from '../runtime/lifecycle.ts'
import type { Log } from '../runtime/log.ts'
import { bundleSourceOf, type X509Bundle } from '../spiffe/bundle.ts'
import type { Serial } from '../spiffe/certificate.ts'
import { type Presented, presentedOf } from '../spiffe/deny-list.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import { matchId } from '../spiffe/match.ts'
import { renewalPoint, taintPoint } from '../spiffe/renewal.ts'
import { verifySvid } from '../spiffe/svid.ts'
import type { KeptSvid } from './disk-cache.ts'
import type { AgentEntry } from './entries.ts'
import type { Knowledge } from './knowledge.ts'

export interface WorkloadSvid {
  readonly entryId: string
  readonly revision: bigint
  readonly id: SpiffeId
  readonly serial: Serial
  /** DER, leaf first, concatenated */
  readonly chain: Uint8Array
  /** PKCS#8 DER; the Workload API hands it out as bytes */
  readonly key: Uint8Array
  /** milliseconds since the epoch */
  readonly notAfter: number
  readonly receivedAt: number
  readonly renewAt: number
  readonly hint: string
  /** how many came before it in this process */
  readonly rotations: number
  /** encoded name of the authority that signed it */
  readonly issuer: Uint8Array
  /** what rules of the deny-list can name */
  readonly presented: Presented
  /** its chain, to be compared with a new bundle */
  readonly certificates: readonly Uint8Array[]
}

export interface SvidCache {
  readonly svids: ReadonlyMap<string, WorkloadSvid>
  /** Entries without SVID, with one of another revision, at its point, tainted, denied, or no longer in the bundle. */
  due(): AgentEntry[]
  /** Verifies and keeps an answer of the authority. Throws ERR_UNTRUSTED. */
  take(entry: AgentEntry, message: X509SVID, key: Uint8Array): void
  /** Somebody asks for the SVID of an entry whose SVID is not made before. */
  want(entry: AgentEntry): void
  onWanted(listener: () => void): Disposable
  kept(): KeptSvid[]
  /** Takes back what was kept, as far as it is still good for an entry as it is now. */
  restore(kept: readonly KeptSvid[]): void
  /** Drops what has expired, lost its entry or is denied. */
  sweep(): void
  /** Tells the listeners that something was taken or dropped. */
  tell(): void
  /** milliseconds until the next renewal or expiry */
  untilNext(): number
  /** milliseconds of the shortest life that is left; infinite without SVIDs */
  shortestLife(): number
  /** Called with the ids of the entries whose SVIDs have changed. */
  onChange(listener: (entryIds: ReadonlySet<string>) => void): Disposable
}

export interface SvidCacheOptions {
  readonly knowledge: Knowledge
  readonly clock: Clock
  readonly log: Log
}

interface Received {
  /** DER, leaf first */
  readonly chain: readonly Uint8Array[]
  /** PKCS#8 DER */
  readonly key: Uint8Array
  readonly receivedAt: number
}

/** Whether an SVID verifies against the bundle as it is now; asked again only for another bundle. */
function createTrust(knowledge: Knowledge, now: () => number): (svid: WorkloadSvid) => boolean {
  const known = new WeakMap<WorkloadSvid, X509Bundle>()
  return (svid) => {
    const bundle = knowledge.bundle()
    if (known.get(svid) === bundle) return true
    try {
      verifySvid(svid.certificates, bundleSourceOf(bundle), { now: now() })
      known.set(svid, bundle)
      return true
    } catch {
      return false
    }
  }
}

/** Throws ERR_UNTRUSTED when the chain is not that of the entry, or not believed. */
function svidOf(
  entry: AgentEntry,
  { chain, key, receivedAt }: Received,
  { bundle, now }: { readonly bundle: X509Bundle; readonly now: number },
): WorkloadSvid {
  const match = matchId(entry.spiffeId)
  const verified = verifySvid(chain, bundleSourceOf(bundle), { now, match })
  const { leaf } = verified
  return {
    entryId: entry.id,
    revision: entry.revision,
    id: entry.spiffeId,
    serial: leaf.serial,
    chain: Buffer.concat(chain),
    key,
    notAfter: leaf.notAfter,
    receivedAt,
    renewAt: renewalPoint(leaf.der, receivedAt, leaf.notAfter),
    hint: entry.hint,
    rotations: 0,
    issuer: leaf.issuer,
    presented: presentedOf(verified),
    certificates: chain,
  }
}

function keptOf({ entryId, revision, certificates, key, receivedAt }: WorkloadSvid): KeptSvid {
  return { entryId, revision, key, receivedAt, chain: [...certificates] }
}

/** Entries whose SVID is made once somebody asks for it. */
function createWanted() {
  const wanted = new Set<string>()
  const topic = createTopic<void>()
  return {
    has: (id: string) => wanted.has(id),
    delete: (id: string) => wanted.delete(id),
    add(id: string) {
      if (wanted.has(id)) return
      wanted.add(id)
      topic.publish()
    },
    onChange: (listener: () => void) => topic.subscribe(listener),
  }
}

/** Entries whose SVIDs have changed, and who is told of them. */
function createChanges() {
  const topic = createTopic<ReadonlySet<string>>()
  let untold = new Set<string>()
  return {
    add: (entryId: string) => untold.add(entryId),
    tell() {
      if (untold.size === 0) return
      const changed = untold
      untold = new Set()
      topic.publish(changed)
    },
    onChange: (listener: (entryIds: ReadonlySet<string>) => void) => topic.subscribe(listener),
  }
}

export function createSvidCache({ knowledge, clock, log }: SvidCacheOptions): SvidCache {
  const svids = new Map<string, WorkloadSvid>()
  const changes = createChanges()
  const wanted = createWanted()
  const isTrusted = createTrust(knowledge, clock.now)

  /** Its own point, or earlier when its authority was tainted. */
  function dueAt({ renewAt, issuer, notAfter, certificates: [leaf] }: WorkloadSvid): number {
    const taintedAt = knowledge.taints().ofAuthority(issuer)
    if (taintedAt === undefined || leaf === undefined) return renewAt
    return Math.min(renewAt, taintPoint(leaf, taintedAt, notAfter))
  }

  function isDue({ id, revision, isLazy }: AgentEntry): boolean {
    const svid = svids.get(id)
    if (isLazy && svid === undefined && !wanted.has(id)) return false
    if (svid === undefined || svid.revision !== revision) return true
    const now = clock.now()
    const rule = knowledge.revocation().denyList.against(svid.presented, now)
    return now >= dueAt(svid) || rule !== undefined || !isTrusted(svid)
  }

  const believed = () => ({ bundle: knowledge.bundle(), now: clock.now() })

  function take(entry: AgentEntry, { certChain }: X509SVID, key: Uint8Array): void {
    const received = { chain: certChain, key, receivedAt: clock.now() }
    const svid = svidOf(entry, received, believed())
    const before = svids.get(entry.id)
    changes.add(entry.id)
    svids.set(entry.id, { ...svid, rotations: before === undefined ? 0 : before.rotations + 1 })
    const notAfter = new Date(svid.notAfter).toISOString()
    const what = before === undefined ? 'SVID received' : 'SVID renewed'
    log.info({ spiffeId: entry.spiffeId, serial: svid.serial, notAfter }, what)
  }

  function restore({ entryId, revision, ...received }: KeptSvid): void {
    const entry = knowledge.entries.get(entryId)
    if (entry === undefined || entry.revision !== revision) return
    try {
      svids.set(entryId, svidOf(entry, received, believed()))
    } catch (error) {
      log.debug({ err: error, entryId }, 'an SVID that was kept is not good any more')
    }
  }

  function sweep(): void {
    for (const { entryId, id, notAfter } of [...svids.values()]) {
      const isExpired = notAfter <= clock.now()
      if (!isExpired && knowledge.entries.has(entryId) && !knowledge.isDenied(id)) continue
      svids.delete(entryId)
      wanted.delete(entryId)
      changes.add(entryId)
      if (isExpired)
        log.error({ spiffeId: id, entryId }, 'an SVID expired before it could be renewed')
    }
    changes.tell()
  }

  return {
    svids,
    take,
    restore: (kept) => kept.forEach(restore),
    kept: () => [...svids.values()].map(keptOf),
    want: ({ id }) => wanted.add(id),
    onWanted: wanted.onChange,
    sweep,
    due: () =>
      [...knowledge.entries.values()].filter(
        (entry) => !knowledge.isDenied(entry.spiffeId) && isDue(entry),
      ),
    tell: changes.tell,
    untilNext() {
      const points = [...svids.values()].map((svid) => Math.min(dueAt(svid), svid.notAfter))
      return Math.max(Math.min(...points) - clock.now(), 10)
    },
    shortestLife: () =>
      Math.min(...[...svids.values()].map(({ notAfter }) => notAfter - clock.now())),
    onChange: changes.onChange,
  }
}
