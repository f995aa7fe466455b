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
import type { AgentEntry, Knowledge } from './knowledge.ts'

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
  /** Drops what has expired, lost its entry or is denied. */
  sweep(): void
  /** Tells the listeners that something was taken or dropped. */
  tell(): void
  /** milliseconds until the next renewal or expiry */
  untilNext(): number
  /** milliseconds of the shortest life that is left; infinite without SVIDs */
  shortestLife(): number
  /** Called after each change of an SVID. */
  onChange(listener: () => void): Disposable
}

export interface SvidCacheOptions {
  readonly knowledge: Knowledge
  readonly clock: Clock
  readonly log: Log
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

export function createSvidCache({ knowledge, clock, log }: SvidCacheOptions): SvidCache {
  const svids = new Map<string, WorkloadSvid>()
  const topic = createTopic<void>()
  const isTrusted = createTrust(knowledge, clock.now)

  /** Its own point, or earlier when its authority was tainted. */
  function dueAt({ renewAt, issuer, notAfter, certificates: [leaf] }: WorkloadSvid): number {
    const taintedAt = knowledge.taintedAt(issuer)
    if (taintedAt === undefined || leaf === undefined) return renewAt
    return Math.min(renewAt, taintPoint(leaf, taintedAt, notAfter))
  }

  function isDue({ id, revision }: AgentEntry): boolean {
    const svid = svids.get(id)
    if (svid === undefined || svid.revision !== revision) return true
    const now = clock.now()
    const rule = knowledge.revocation().denyList.against(svid.presented, now)
    return now >= dueAt(svid) || rule !== undefined || !isTrusted(svid)
  }

  function take(entry: AgentEntry, { certChain }: X509SVID, key: Uint8Array): void {
    const now = clock.now()
    const match = matchId(entry.spiffeId)
    const verified = verifySvid(certChain, bundleSourceOf(knowledge.bundle()), { now, match })
    const { leaf } = verified
    const before = svids.get(entry.id)
    svids.set(entry.id, {
      entryId: entry.id,
      revision: entry.revision,
      id: entry.spiffeId,
      serial: leaf.serial,
      chain: Buffer.concat(certChain),
      key,
      notAfter: leaf.notAfter,
      renewAt: renewalPoint(leaf.der, now, leaf.notAfter),
      hint: entry.hint,
      rotations: before === undefined ? 0 : before.rotations + 1,
      issuer: leaf.issuer,
      presented: presentedOf(verified),
      certificates: certChain,
    })
    const notAfter = new Date(leaf.notAfter).toISOString()
    const what = before === undefined ? 'SVID received' : 'SVID renewed'
    log.info({ spiffeId: entry.spiffeId, serial: leaf.serial, notAfter }, what)
  }

  function sweep(): void {
    for (const { entryId, id, notAfter } of [...svids.values()]) {
      const isExpired = notAfter <= clock.now()
      if (!isExpired && knowledge.entries.has(entryId) && !knowledge.isDenied(id)) continue
      svids.delete(entryId)
      if (isExpired)
        log.error({ spiffeId: id, entryId }, 'an SVID expired before it could be renewed')
      topic.publish()
    }
  }

  return {
    svids,
    take,
    sweep,
    due: () =>
      [...knowledge.entries.values()].filter(
        (entry) => !knowledge.isDenied(entry.spiffeId) && isDue(entry),
      ),
    tell: () => topic.publish(),
    untilNext() {
      const points = [...svids.values()].map((svid) => Math.min(dueAt(svid), svid.notAfter))
      return Math.max(Math.min(...points) - clock.now(), 10)
    },
    shortestLife: () =>
      Math.min(...[...svids.values()].map(({ notAfter }) => notAfter - clock.now())),
    onChange: (listener) => topic.subscribe(listener),
  }
}
