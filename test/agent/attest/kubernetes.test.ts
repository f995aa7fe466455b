// k8s: selectors, from kubelets that answer what was recorded.
import type { RequestListener } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { describe, expect, it } from 'vitest'
import { createLocateContainer } from '../../../agent/attest/container-place.ts'
import {
  createKubelet,
  type KubeletOptions,
  type PodResolver,
} from '../../../agent/attest/kubelet.ts'
import { createKubernetesAttestor } from '../../../agent/attest/kubernetes.ts'
import { makeTestTls } from '../../support/test-tls.ts'
import {
  containerId,
  everything,
  hastyClock,
  listening,
  never,
  peer,
  podUid,
  recordedProc,
  serving,
  temporaryFolder,
  vector,
} from './recorded.ts'

const pods = vector('kubelet-pods.json')
const kubelet =
  (body: string | (() => string)): RequestListener =>
  ({ url }, response) => {
    if (url !== '/pods') response.writeHead(404).end()
    else response.end(typeof body === 'string' ? body : body())
  }

const slice = (pod: string) => `0::/kubepods.slice/kubepods-pod<pod_:${pod}>.slice`
const inWeb = `${slice('web')}/cri-containerd-<c:web>.scope\n`

/** An attestor on a machine where the process 7 is in `cgroup`. */
function attestorFor(cgroup: string, resolver: PodResolver, clock = hastyClock()) {
  const own = '0::/system.slice/agent.service\n'
  const recorded = recordedProc({ 'self/cgroup': own, '7/cgroup': cgroup })
  const locate = createLocateContainer(recorded.proc)
  const attestor = createKubernetesAttestor({ locate, pods: resolver, wait: 5000, clock })
  return {
    ask: (signal = never) => attestor.attest(peer(7), everything, { signal }),
    [Symbol.dispose]: () => recorded[Symbol.dispose](),
  }
}

async function attest(cgroup: string, body: string | (() => string), clock = hastyClock()) {
  await using server = await serving(kubelet(body))
  using machine = attestorFor(cgroup, createKubelet({ url: server.url, clock }), clock)
  return await machine.ask()
}

describe('a process in a pod', () => {
  it('has what the kubelet knows of its pod and of its container', async () => {
    const { selectors, missing } = await attest(inWeb, pods)
    expect([...selectors].sort()).toEqual(
      [
        'k8s:ns:shop',
        'k8s:sa:web',
        'k8s:pod-name:web-6d4cf56db6-x2lmz',
        `k8s:pod-uid:${podUid('web')}`,
        'k8s:node-name:node-1',
        'k8s:pod-label:app.kubernetes.io/name:web',
        'k8s:pod-label:pod-template-hash:6d4cf56db6',
        'k8s:pod-owner:ReplicaSet:web-6d4cf56db6',
        `k8s:pod-owner-uid:ReplicaSet:${podUid('replicaset')}`,
        'k8s:pod-image-count:2',
        'k8s:pod-image:registry.example/proxy:2.0',
        `k8s:pod-image:registry.example/proxy@sha256:${containerId('proxy-image')}`,
        'k8s:pod-image:registry.example/web:1.4',
        `k8s:pod-image:registry.example/web@sha256:${containerId('web-image')}`,
        'k8s:pod-init-image-count:1',
        'k8s:pod-init-image:registry.example/migrate:1.4',
        `k8s:pod-init-image:registry.example/migrate@sha256:${containerId('migrate-image')}`,
        'k8s:container-name:web',
        'k8s:container-image:registry.example/web:1.4',
        `k8s:container-image:registry.example/web@sha256:${containerId('web-image')}`,
      ].sort(),
    )
    expect(missing).toEqual([])
  })

  it('may be in an init container', async () => {
    const { selectors } = await attest(`${slice('web')}/crio-<c:migrate>.scope\n`, pods)
    expect([...selectors]).toContain('k8s:container-name:migrate')
  })

  it('whose cgroup does not name the pod is found by its container', async () => {
    const { selectors } = await attest('0::/../crio-<c:proxy>.scope\n', pods)
    expect([...selectors]).toContain('k8s:container-name:proxy')
  })

  it('whose container the kubelet does not list yet is waited for', async () => {
    const clock = hastyClock()
    let asked = 0
    const started = pods.replace(
      '"imageID": ""',
      `"imageID": "", "containerID": "cri-o://${containerId('late')}"`,
    )
    const { selectors } = await attest(
      `${slice('late')}/crio-<c:late>.scope\n`,
      () => (++asked < 4 ? pods : started),
      clock,
    )
    expect([...selectors]).toContain('k8s:pod-name:late-0')
    expect(clock.waited).toBe(1500)
  })

  it('is given up when who asked for it has gone', async () => {
    const stop = new AbortController()
    await using server = await serving(() => stop.abort(new Error('gone')))
    const clock = hastyClock()
    using machine = attestorFor(inWeb, createKubelet({ url: server.url, clock }), clock)
    await expect(machine.ask(stop.signal)).rejects.toThrow('gone')
  })

  it('adversary: a container that the kubelet does not know gives nothing, and is waited for once', async () => {
    const clock = hastyClock()
    await using server = await serving(kubelet(pods))
    const unknown = `${slice('web')}/crio-<c:made-up>.scope\n`
    using machine = attestorFor(unknown, createKubelet({ url: server.url, clock }), clock)
    const none = {
      selectors: new Set(),
      missing: [`k8s (the kubelet lists no container ${containerId('made-up')})`],
    }
    expect(await machine.ask()).toEqual(none)
    const first = clock.waited
    expect(first).toBeGreaterThanOrEqual(4500)
    expect(await machine.ask()).toEqual(none)
    expect(clock.waited).toBe(first)
  })

  it('adversary: the container of one pod below the cgroup of another is in neither', async () => {
    const { selectors } = await attest(`${slice('late')}/crio-<c:web>.scope\n`, pods)
    expect([...selectors]).toEqual([])
  })

  it('adversary: a cgroup that a service was given, with the names of a pod, is not believed', async () => {
    const made = `0::/system.slice/app.service/kubepods/pod<pod:web>/<c:web>\n`
    const { selectors, missing } = await attest(made, pods)
    expect([...selectors]).toEqual([])
    expect(missing).toEqual(['k8s (its cgroup is below app.service, which could give it any name)'])
  })

  it('adversary: two pods that have the same container are an error', async () => {
    const { items } = JSON.parse(pods)
    const twin = JSON.stringify({
      items: [items[0], { ...items[0], metadata: { ...items[0].metadata, uid: podUid('twin') } }],
    })
    await expect(attest('0::/../crio-<c:web>.scope\n', twin)).rejects.toThrow('two pods')
  })

  it('who is in no pod is not asked about', async () => {
    expect(await attest('0::/system.slice/nginx.service\n', () => expect.fail('asked'))).toEqual({
      selectors: new Set(),
      missing: [],
    })
  })
})

describe('a kubelet', () => {
  it('that is away is a failure, after it was waited for: nobody can say', async () => {
    const clock = hastyClock()
    const server = await serving(kubelet(pods))
    await server[Symbol.asyncDispose]()
    using machine = attestorFor(inWeb, createKubelet({ url: server.url, clock }), clock)
    await expect(machine.ask()).rejects.toMatchObject({ code: 'ERR_UNAVAILABLE' })
    expect(clock.waited).toBeGreaterThanOrEqual(4500)
  })

  it('that answers something else is a failure', async () => {
    for (const body of ['[]', 'oops', '{"items": 1}']) {
      await expect(attest(inWeb, body)).rejects.toMatchObject({ code: 'ERR_UNAVAILABLE' })
    }
  })

  it('is asked once for all who wait', async () => {
    let asked = 0
    const countedPods = () => {
      asked++
      return pods
    }
    await using server = await serving(kubelet(countedPods))
    const resolver = createKubelet({ url: server.url, clock: hastyClock() })
    const container = { id: containerId('web'), podUid: podUid('web').replaceAll('-', '') }
    const ask = () => resolver.podOf(container, { signal: never })
    const answers = await Promise.all(Array.from({ length: 50 }, ask))
    expect(answers.every((it) => it?.container.name === 'web')).toBe(true)
    expect(asked).toBe(1)
  })

  it('over TLS is who its certificate says, and is shown the token', async () => {
    const tls = await makeTestTls('node-1')
    using folder = temporaryFolder()
    const seen: (string | undefined)[] = []
    const secure = createTlsServer({ cert: tls.cert, key: tls.key }, (request, response) => {
      seen.push(request.headers.authorization)
      kubelet(pods)(request, response)
    })
    await using server = await listening(secure)
    const ask = (more: Partial<KubeletOptions>) =>
      createKubelet({
        url: `https://127.0.0.1:${server.port}`,
        clock: hastyClock(),
        ...more,
      }).podOf({ id: containerId('web'), podUid: undefined }, { signal: never })
    const ca = folder.write('ca.pem', tls.ca)
    const token = folder.write('token', 'first\n')
    expect((await ask({ ca, token, nodeName: 'node-1' }))?.pod.metadata.name).toBe(
      'web-6d4cf56db6-x2lmz',
    )
    folder.write('token', 'second\n')
    await ask({ ca, token })
    expect(seen).toEqual(['Bearer first', 'Bearer second'])
    await expect(ask({ ca, token, nodeName: 'node-2' })).rejects.toThrow('node-2')
    const other = folder.write('other.pem', (await makeTestTls('other')).ca)
    await expect(ask({ ca: other, token })).rejects.toMatchObject({ code: 'ERR_UNAVAILABLE' })
    await expect(ask({ ca, token: `${folder.path}/none` })).rejects.toThrow('ENOENT')
    expect(seen).toHaveLength(2)
  })
})
