// Which container a process runs in, by the cgroup that a container runtime made for it. A process may make
// cgroups of any name below its own: what stands nearest to the root counts, not what stands last.
import { IdentityError } from '../../spiffe/errors.ts'
import { type Cgroup, cgroupMounts, parseCgroups } from './cgroup.ts'
import type { Proc } from './proc.ts'

export interface ContainerPlace {
  /** 64 hex digits */
  readonly id: string
  /** as in the cgroup's name; 32 hex digits, undefined outside of pods */
  readonly podUid: string | undefined
  /** such as docker, libpod, cri-containerd, crio; empty when the name does not say */
  readonly runtime: string
  /** the cgroup of the container itself: the same for all of its processes */
  readonly at: string
  /** the user whose own service manager this is below */
  readonly owner: number | undefined
  /** the unit that this is below: its processes could have made the cgroup, and named it as they liked */
  readonly claimedBy: string | undefined
}

/** Of cgroupfs: ID, libpod-ID, crio-ID; of systemd: docker-ID.scope, cri-containerd-ID.scope. */
const container = /^(?:([a-z][a-z0-9-]*)-)?([0-9a-f]{64})(?:\.scope)?$/
/** containerd with the systemd names and without systemd: SLICE:cri-containerd:ID */
const joined = /^([^:]*):([a-z][a-z0-9-]*):([0-9a-f]{64})$/
const pod = /(?:^|-)pod([0-9a-f]{8}(?:[-_]?[0-9a-f]{4}){3}[-_]?[0-9a-f]{12})(?:\.slice)?$/
/** Where a runtime keeps containers that are named by their ID alone. */
const runtimeFolder = /^(?:docker|libpod|crio)$/
/** The monitor of a container is not in it. */
const monitor = /(?:^|-)conmon$/
/** Their processes are who makes containers. */
const runtimeUnit =
  /^(?:containerd|docker|crio|cri-o|podman|kubelet|k3s|k3s-agent|rke2-server|rke2-agent|k0scontroller|k0sworker)\.service$/
const unit = /\.(?:service|scope)$/

interface Named {
  readonly id: string
  readonly runtime: string
  /** what of the segment stands before the container */
  readonly before: string
}

function containerNamed(segment: string): Named | undefined {
  const [, before = '', joinedRuntime = '', joinedId] = joined.exec(segment) ?? []
  if (joinedId !== undefined) return { id: joinedId, runtime: joinedRuntime, before }
  const [, runtime = '', id] = container.exec(segment) ?? []
  if (id === undefined || monitor.test(runtime)) return undefined
  return { id, runtime, before: '' }
}

function commonLength(a: readonly string[], b: readonly string[]): number {
  const end = a.findIndex((segment, i) => segment !== b[i])
  return end < 0 ? a.length : end
}

function ownerOf(segments: readonly string[]): number | undefined {
  const at = segments.indexOf('user.slice')
  const uid = at < 0 ? undefined : /^user-(\d{1,10})\.slice$/.exec(segments[at + 1] ?? '')?.[1]
  return uid === undefined ? undefined : Number(uid)
}

/** The pod that the last of `segments` says. */
function podOf(segments: readonly string[]): string | undefined {
  const found = segments.findLast((segment) => pod.test(segment)) ?? ''
  return pod.exec(found)?.[1]?.replace(/[-_]/g, '')
}

/**
 * The outermost container that this agent, whose own cgroup is `own`, is not in itself; the agent's when
 * there is no other.
 */
export function placeIn({ controllers, segments }: Cgroup, own: readonly string[]) {
  const shared = commonLength(segments, own)
  let after = 0
  let place: ContainerPlace | undefined
  for (const [i, segment] of segments.entries()) {
    const named = containerNamed(segment)
    if (named === undefined) continue
    const parents = segments.slice(0, i)
    // of what this agent is below itself, nobody else could have made anything up
    const claim = parents.slice(shared).find((it) => unit.test(it) && !runtimeUnit.test(it))
    place = {
      id: named.id,
      podUid: podOf([...parents.slice(after), named.before]),
      runtime: named.runtime || (parents.at(-1)?.match(runtimeFolder)?.[0] ?? ''),
      at: `${controllers}:/${segments.slice(0, i + 1).join('/')}`,
      owner: ownerOf(parents),
      claimedBy: claim,
    }
    after = i + 1
    if (i >= shared) break
  }
  return place
}

/** What several hierarchies say together: those that know of a pod outweigh those that do not. */
export function placeAmong(
  cgroups: readonly Cgroup[],
  own: readonly Cgroup[],
): ContainerPlace | undefined {
  const places = cgroups.flatMap((cgroup) => {
    const mine = own.find(({ controllers }) => controllers === cgroup.controllers)
    return placeIn(cgroup, mine?.segments ?? []) ?? []
  })
  const inPods = places.filter(({ podUid }) => podUid !== undefined)
  const [first, ...others] = inPods.length > 0 ? inPods : places
  if (others.some(({ id, podUid }) => id !== first?.id || podUid !== first.podUid))
    throw new IdentityError('ERR_RUNTIME', 'its cgroups are of different containers')
  // a claim in one hierarchy is a claim
  return others.find(({ claimedBy }) => claimedBy !== undefined) ?? first
}

/** Undefined for who is in no container. Throws when it cannot be told. */
export type LocateContainer = (pid: number) => ContainerPlace | undefined

export function createLocateContainer(proc: Proc): LocateContainer {
  /** What a process is shown as mounted it may have mounted: who may not mount has the namespace of all. */
  const mayBeMountedByItself = (pid: number) =>
    proc.link(pid, 'ns/user') !== proc.link('self', 'ns/user')

  return (pid) => {
    const cgroups = parseCgroups(proc.text(pid, 'cgroup'))
    const own = parseCgroups(proc.text('self', 'cgroup'))
    if (cgroups.some(({ segments }) => segments.length > 0)) return placeAmong(cgroups, own)
    // nothing but the root of this agent's own namespace
    const mounts = cgroupMounts(proc.text(pid, 'mountinfo'))
    const place = placeAmong(mounts, [])
    if (place === undefined || mayBeMountedByItself(pid)) return undefined
    return place
  }
}
