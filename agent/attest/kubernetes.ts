// Selectors of a process in a pod, by what the kubelet says of the container that it runs in.
import type { Clock } from '../../runtime/clock.ts'
import type { Attestor } from './attestor.ts'
import type { ContainerPlace, LocateContainer } from './container-place.ts'
import type { ContainerStatus, FoundPod, Pod, PodResolver } from './kubelet.ts'
import { askUntilAnswered } from './patience.ts'

export interface KubernetesOptions {
  readonly locate: LocateContainer
  readonly pods: PodResolver
  /** milliseconds for which a container that the kubelet does not list yet is waited for */
  readonly wait: number
  readonly clock: Clock
}

const interval = 500
/** milliseconds for one question alone */
const leastWait = 3000
/** milliseconds for which nobody waits again for a container that was never listed */
const giveUp = 30_000
const mostUnknown = 1024

const imagesOf = (statuses: readonly ContainerStatus[]) => [
  ...new Set(statuses.flatMap(({ image, imageID }) => [image, imageID]).filter((it) => it !== '')),
]

function valuesOf({ metadata, spec, status }: Pod): string[] {
  const containers = status.containerStatuses ?? []
  const init = status.initContainerStatuses ?? []
  return [
    `ns:${metadata.namespace}`,
    `sa:${spec.serviceAccountName}`,
    `pod-name:${metadata.name}`,
    `pod-uid:${metadata.uid}`,
    `node-name:${spec.nodeName}`,
    `pod-image-count:${containers.length}`,
    `pod-init-image-count:${init.length}`,
    ...imagesOf(containers).map((image) => `pod-image:${image}`),
    ...imagesOf(init).map((image) => `pod-init-image:${image}`),
    ...Object.entries(metadata.labels ?? {}).map(([key, value]) => `pod-label:${key}:${value}`),
    ...(metadata.ownerReferences ?? []).flatMap(({ kind, name, uid }) => [
      `pod-owner:${kind}:${name}`,
      `pod-owner-uid:${kind}:${uid}`,
    ]),
  ]
}

const named = (values: readonly string[]) => new Set(values.map((value) => `k8s:${value}`))

/** What all the processes of a pod have. */
export const selectorsOfPod = (pod: Pod): ReadonlySet<string> => named(valuesOf(pod))

function selectorsOf({ pod, container }: FoundPod): ReadonlySet<string> {
  const own = [
    `container-name:${container.name}`,
    ...imagesOf([container]).map((image) => `container-image:${image}`),
  ]
  return named([...valuesOf(pod), ...own])
}

export function createKubernetesAttestor(options: KubernetesOptions): Attestor {
  const { locate, pods, wait, clock } = options
  /** containers that were waited for in vain, and when that was */
  const unknown = new Map<string, number>()
  const absent = (why: string) => ({ selectors: new Set<string>(), missing: [`k8s (${why})`] })

  function patienceFor({ id, podUid }: ContainerPlace): number {
    const since = unknown.get(id)
    const isKnown = since !== undefined && clock.monotonic() - since < giveUp
    // what does not look like a pod's container is not about to become one
    return isKnown || podUid === undefined ? 0 : wait
  }

  function giveUpOn({ id }: ContainerPlace): void {
    if (unknown.size >= mostUnknown) unknown.clear()
    unknown.set(id, clock.monotonic())
  }

  return {
    type: 'k8s',
    async attest({ pid }, _demand, { signal }) {
      const place = locate(pid)
      if (place === undefined || place.runtime.startsWith('libpod'))
        return { selectors: new Set(), missing: [] }
      if (place.claimedBy !== undefined)
        return absent(`its cgroup is below ${place.claimedBy}, which could give it any name`)
      const patience = { wait: patienceFor(place), interval, clock, signal }
      // whatever the kubelet does, who asked is answered by then
      const soon = AbortSignal.any([
        signal,
        AbortSignal.timeout(Math.max(patience.wait, leastWait)),
      ])
      const found = await askUntilAnswered(() => pods.podOf(place, { signal: soon }), patience)
      if (found === undefined) {
        if (patience.wait > 0) giveUpOn(place)
        return absent(`the kubelet lists no container ${place.id}`)
      }
      unknown.delete(place.id)
      return { selectors: selectorsOf(found), missing: [] }
    },
  }
}
