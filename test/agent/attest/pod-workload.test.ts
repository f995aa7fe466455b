// A pod that a broker refers to, at a kubelet that answers what was recorded and what became of it.
import { expect, it } from 'vitest'
import { createKubelet, type PodReference } from '../../../agent/attest/kubelet.ts'
import { podWorkload } from '../../../agent/attest/pod-workload.ts'
import { createFakeClock } from '../../support/fake-clock.ts'
import { podUid, serving, vector } from './recorded.ts'

const recorded = vector('kubelet-pods.json')
const web = podUid('web')
const key = { namespace: 'shop', name: 'web-6d4cf56db6-x2lmz' }
const nobody = { items: [] }
const relabelled = recorded.replace('"pod-template-hash": "6d4cf56db6"', '"track": "canary"')
const replaced = recorded.replaceAll(web, podUid('its successor'))
const twins = JSON.stringify({
  items: [...JSON.parse(recorded).items, ...JSON.parse(replaced).items],
})

/** A kubelet that says `now`, or nothing while that is undefined. */
async function startKubelet() {
  const clock = createFakeClock()
  const state: { now: string | undefined } = { now: recorded }
  const server = await serving((_, response) => {
    if (state.now === undefined) response.writeHead(500).end()
    else response.end(state.now)
  })
  const pods = createKubelet({ url: server.url, clock })
  return {
    state,
    refer: (reference: PodReference) => podWorkload(reference, { pods, clock }),
    /** The next look at the pod, at a list that is asked for anew. */
    async look() {
      await clock.asleep()
      await clock.advance(2000)
    },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  }
}

it('is found by its UID, by its name, or by both; it has what all of its containers have', async () => {
  await using kubelet = await startKubelet()
  for (const reference of [{ uid: web }, { key }, { uid: web, key }]) {
    await using pod = await kubelet.refer(reference)
    const { selectors, failed } = await pod.attest()
    expect([...selectors]).toEqual(
      expect.arrayContaining(['k8s:ns:shop', 'k8s:sa:web', `k8s:pod-uid:${web}`]),
    )
    const ofOne = [...selectors].filter((it) => it.startsWith('k8s:container-'))
    expect([ofOne, failed.size, pod.isAlive()]).toEqual([[], 0, true])
  }
})

it('is not there under another name or UID, on another node, or after it has ended', async () => {
  await using kubelet = await startKubelet()
  const unknown = { code: 'ERR_NOT_FOUND', message: 'the kubelet of this node lists no such pod' }
  for (const reference of [
    { uid: podUid('elsewhere') },
    { uid: web.replaceAll('-', '') },
    { uid: web, key: { ...key, name: 'late-0' } },
    { uid: podUid('late'), key },
    { key: { ...key, namespace: 'other' } },
  ])
    await expect(kubelet.refer(reference)).rejects.toMatchObject(unknown)
  for (const phase of ['Succeeded', 'Failed']) {
    await using other = await startKubelet()
    other.state.now = recorded.replace('"Running"', `"${phase}"`)
    await expect(other.refer({ uid: web })).rejects.toMatchObject(unknown)
  }
})

it('that changes is told of; one that is gone has ended, for good', async () => {
  await using kubelet = await startKubelet()
  await using pod = await kubelet.refer({ key })
  let changed = Promise.withResolvers<void>()
  using _ = pod.onChange(() => changed.resolve())
  kubelet.state.now = relabelled
  await kubelet.look()
  await changed.promise
  expect([...(await pod.attest()).selectors]).toContain('k8s:pod-label:track:canary')
  changed = Promise.withResolvers()
  // one of the same name takes its place
  kubelet.state.now = replaced
  await kubelet.look()
  await changed.promise
  expect(pod.isAlive()).toBe(false)
  await expect(pod.attest()).rejects.toMatchObject({ code: 'ERR_NOT_FOUND' })
})

it('stays what it was while the kubelet does not answer; who asks then is told to come again', async () => {
  await using kubelet = await startKubelet()
  await using pod = await kubelet.refer({ uid: web })
  let changes = 0
  const changed = Promise.withResolvers<void>()
  using _ = pod.onChange(() => {
    changes++
    changed.resolve()
  })
  kubelet.state.now = undefined
  await kubelet.look()
  await expect(kubelet.refer({ uid: web })).rejects.toMatchObject({ code: 'ERR_UNAVAILABLE' })
  await kubelet.look()
  expect([changes, pod.isAlive()]).toEqual([0, true])
  kubelet.state.now = JSON.stringify(nobody)
  await kubelet.look()
  await changed.promise
  expect([changes, pod.isAlive()]).toEqual([1, false])
})

it('adversary: two pods of one name are neither', async () => {
  await using kubelet = await startKubelet()
  kubelet.state.now = twins
  await expect(kubelet.refer({ key })).rejects.toMatchObject({
    code: 'ERR_UNAVAILABLE',
    message: 'two pods have that name',
  })
  await using pod = await kubelet.refer({ key, uid: web })
  expect([...(await pod.attest()).selectors]).toContain(`k8s:pod-uid:${web}`)
})
