// A pod that somebody else asks for: it is what all of its containers have in common, as long as it has not ended.
import type { Clock } from '../../runtime/clock.ts'
import { createTopic, every } from '../../runtime/lifecycle.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import type { Pod, PodFinder, PodReference } from './kubelet.ts'
import { selectorsOfPod } from './kubernetes.ts'
import type { ReferredWorkload } from './referred-workload.ts'

export interface PodWorkloadOptions {
  readonly pods: PodFinder
  readonly clock: Clock
}

/** milliseconds between two looks at a pod */
const lookEvery = 2000

const textOf = (pod: Pod | undefined) =>
  pod === undefined ? '' : [...selectorsOfPod(pod)].join('\n')

function found(pod: Pod | undefined): Pod {
  if (pod !== undefined) return pod
  throw new IdentityError('ERR_NOT_FOUND', 'the kubelet of this node lists no such pod')
}

/** Throws ERR_NOT_FOUND when this node runs no such pod, ERR_UNAVAILABLE when the kubelet does not say. */
export async function podWorkload(
  reference: PodReference,
  { pods, clock }: PodWorkloadOptions,
): Promise<ReferredWorkload> {
  const stop = new AbortController()
  const { signal } = stop
  const first = found(await pods.find(reference, { signal }))
  // another pod that takes its name is another workload
  const pinned: PodReference = { ...reference, uid: first.metadata.uid }
  const topic = createTopic<void>()
  let seen = textOf(first)
  const looking = every(clock, lookEvery, async () => {
    // a kubelet that does not answer says nothing new
    const now = await pods.find(pinned, { signal }).then(textOf, () => seen)
    if (now === seen) return
    seen = now
    topic.publish()
  })
  return {
    isAlive: () => seen !== '',
    onChange: (listener) => topic.subscribe(listener),
    async attest() {
      const pod = found(await pods.find(pinned, { signal }))
      return { selectors: selectorsOfPod(pod), failed: new Set() }
    },
    async [Symbol.asyncDispose]() {
      stop.abort(new Error('nobody asks for this workload any more'))
      await looking[Symbol.asyncDispose]()
    },
  }
}
