// What the kubelet of this node says of its pods.
import { readFile } from 'node:fs/promises'
import { z } from 'zod'
import type { Clock } from '../../runtime/clock.ts'
import { errnoOf } from '../../runtime/errno.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import type { TlsOptions } from './ask-json.ts'
import { unlessAborted } from './patience.ts'

const status = z.object({
  name: z.string(),
  image: z.string().default(''),
  imageID: z.string().default(''),
  /** `containerd://…`; none while it has not been started */
  containerID: z.string().default(''),
})
const owner = z.object({ kind: z.string(), name: z.string(), uid: z.string() })
const pod = z.object({
  metadata: z.object({
    name: z.string(),
    namespace: z.string(),
    uid: z.string(),
    labels: z.record(z.string(), z.string()).nullish(),
    ownerReferences: z.array(owner).nullish(),
  }),
  spec: z.object({
    serviceAccountName: z.string().default(''),
    nodeName: z.string().default(''),
  }),
  status: z.object({
    phase: z.string().default(''),
    containerStatuses: z.array(status).nullish(),
    initContainerStatuses: z.array(status).nullish(),
  }),
})
const list = z.object({ items: z.array(z.unknown()).nullish() })
const named = z.object({ metadata: z.object({ uid: z.string() }) })

export type Pod = z.infer<typeof pod>
export type ContainerStatus = z.infer<typeof status>

export interface FoundPod {
  readonly pod: Pod
  /** of the very container that was asked for */
  readonly container: ContainerStatus
}

/** The seam: undefined when no pod has such a container. Throws ERR_UNAVAILABLE when nobody can say. */
export interface PodResolver {
  podOf(
    container: { readonly id: string; readonly podUid: string | undefined },
    options: { readonly signal: AbortSignal },
  ): Promise<FoundPod | undefined>
}

/** A pod by its UID, or by its namespace and name; by both when they have to agree. */
export interface PodReference {
  readonly uid?: string | undefined
  readonly key?: { readonly namespace: string; readonly name: string } | undefined
}

/** The seam: undefined when this node runs no such pod. Throws ERR_UNAVAILABLE when nobody can say. */
export interface PodFinder {
  find(reference: PodReference, options: { readonly signal: AbortSignal }): Promise<Pod | undefined>
}

export interface KubeletOptions {
  /** https://…:10250, or http://127.0.0.1:10255, the port that is for reading only */
  readonly url: string
  /** files; read again for each question, as they are renewed */
  readonly token?: string | undefined
  readonly ca?: string | undefined
  readonly certificate?: string | undefined
  readonly key?: string | undefined
  readonly nodeName?: string | undefined
  readonly clock: Clock
}

const timeout = 3000
/** some hundred pods */
const largestAnswer = 32 * 1024 * 1024
/** milliseconds for which a list is used again */
const freshness = 250
/** the same for those who look again and again at a pod that is known */
const lookFreshness = 1000

const plain = (uid: string) => uid.toLowerCase().replaceAll('-', '')

async function textOf(file: string | undefined): Promise<string | undefined> {
  if (file === undefined) return undefined
  try {
    return (await readFile(file, 'utf8')).trim()
  } catch (cause) {
    throw new IdentityError('ERR_UNAVAILABLE', `cannot read ${file} (${errnoOf(cause)})`, { cause })
  }
}

async function tlsOf({ ca, certificate, key, nodeName }: KubeletOptions): Promise<TlsOptions> {
  const [roots = '', cert, secret] = await Promise.all([ca, certificate, key].map(textOf))
  return { ca: roots, cert, key: secret, servername: nodeName }
}

/** Pods by the digits of their uids. */
async function fetchPods(options: KubeletOptions): Promise<ReadonlyMap<string, unknown>> {
  const token = await textOf(options.token)
  const { askJson } = await import('./ask-json.ts')
  const json = await askJson({
    whom: `the kubelet at ${options.url}`,
    to: { url: new URL('/pods', options.url).href },
    ...(options.ca === undefined ? {} : { tls: await tlsOf(options) }),
    ...(token === undefined ? {} : { headers: { authorization: `Bearer ${token}` } }),
    ...{ timeout, most: largestAnswer, signal: new AbortController().signal },
  })
  const parsed = list.safeParse(json)
  if (!parsed.success)
    throw new IdentityError('ERR_UNAVAILABLE', 'the kubelet does not answer with a list of pods')
  const items = (parsed.data.items ?? []).flatMap((item) => {
    const it = named.safeParse(item)
    return it.success ? [[plain(it.data.metadata.uid), item] as const] : []
  })
  return new Map(items)
}

/** A pod that has the container, whether it still is an init container or not. */
function foundIn(item: unknown, id: string): FoundPod | undefined {
  const parsed = pod.safeParse(item)
  if (!parsed.success) return undefined
  const { containerStatuses, initContainerStatuses } = parsed.data.status
  const container = [...(containerStatuses ?? []), ...(initContainerStatuses ?? [])].find(
    ({ containerID }) => containerID.replace(/^[a-z0-9-]+:\/\//, '') === id,
  )
  return container === undefined ? undefined : { pod: parsed.data, container }
}

const isOver = ({ status: { phase } }: Pod) => phase === 'Succeeded' || phase === 'Failed'

/** A pod that was not to be read is nobody's. */
function referredIn(item: unknown, { uid, key }: PodReference): readonly Pod[] {
  const { data } = pod.safeParse(item)
  if (data === undefined || isOver(data)) return []
  const { metadata } = data
  const isIt =
    (uid === undefined || metadata.uid === uid) &&
    (key === undefined || (metadata.namespace === key.namespace && metadata.name === key.name))
  return isIt ? [data] : []
}

export function createKubelet(options: KubeletOptions): PodResolver & PodFinder {
  const { clock } = options
  let asked = Number.NEGATIVE_INFINITY
  let pods: Promise<ReadonlyMap<string, unknown>> = Promise.resolve(new Map())
  let isUnderWay = false

  /** One question at a time, for everybody who waits. */
  function podsNow(age = freshness): Promise<ReadonlyMap<string, unknown>> {
    if (isUnderWay || clock.monotonic() - asked < age) return pods
    asked = clock.monotonic()
    isUnderWay = true
    pods = fetchPods(options).finally(() => {
      isUnderWay = false
    })
    return pods
  }

  return {
    async podOf({ id, podUid }, { signal }) {
      const known = await unlessAborted(podsNow(), signal)
      const candidates = podUid === undefined ? [...known.values()] : [known.get(podUid)]
      const [found, other] = candidates.flatMap((item) => foundIn(item, id) ?? [])
      if (other !== undefined)
        throw new IdentityError('ERR_RUNTIME', `two pods have a container ${id}`)
      return found
    },
    async find(reference, { signal }) {
      const known = await unlessAborted(podsNow(lookFreshness), signal)
      const { uid } = reference
      const candidates = uid === undefined ? [...known.values()] : [known.get(plain(uid))]
      const [found, other] = candidates.flatMap((item) => referredIn(item, reference))
      if (other === undefined) return found
      // one is about to take the other's place
      throw new IdentityError('ERR_UNAVAILABLE', 'two pods have that name', { retryAfter: 1000 })
    },
  }
}
