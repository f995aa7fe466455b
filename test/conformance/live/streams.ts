// How streams behave: at once, in one order, silent while nothing changes, and after each change.
import { strict as assert } from 'node:assert'
import { equals } from '@bufbuild/protobuf'
import { Code } from '@connectrpc/connect'
import {
  type X509SVIDResponse,
  X509SVIDResponseSchema,
} from '../../../proto/gen/spiffe/workload/workloadapi_pb.js'
import { systemClock } from '../../../runtime/clock.ts'
import { assertRefused, check, first, need, patience, refusal } from './check.ts'
import type { NewEntry, Operator } from './operator.ts'
import type { Scene } from './scene.ts'

const soon = 1000
// the one wait whose length is what is claimed: an agent of somebody else takes no clock of ours, and not
// every one has an operator who could bring the message after
const quiet = 2500

const idsOf = ({ svids }: X509SVIDResponse) => svids.map(({ spiffeId }) => spiffeId)

function streamsOf({ client, served }: Scene) {
  const always = {
    FetchX509SVID: () => client.fetchX509SVID({}, { signal: patience() }),
    FetchX509Bundles: () => client.fetchX509Bundles({}, { signal: patience() }),
    FetchJWTBundles: () => client.fetchJWTBundles({}, { signal: patience() }),
  }
  const wit = {
    FetchWITSVID: () => client.fetchWITSVID({}, { signal: patience() }),
    FetchWITBundles: () => client.fetchWITBundles({}, { signal: patience() }),
  }
  return Object.entries<() => AsyncIterable<unknown>>(
    served.wit.kind === 'there' ? { ...always, ...wit } : always,
  )
}

/** Milliseconds to the first message; the least of three, since the machine may stand still. */
async function delayOf(open: () => AsyncIterable<unknown>): Promise<number> {
  const delays: number[] = []
  for (let attempt = 0; attempt < 3; attempt++) {
    const began = systemClock.monotonic()
    await first(open())
    delays.push(systemClock.monotonic() - began)
  }
  return Math.min(...delays)
}

/** A stream that is read one message at a time and closed at the end. */
function follow({ client }: Scene) {
  const stop = new AbortController()
  const signal = AbortSignal.any([stop.signal, patience()])
  const messages = client.fetchX509SVID({}, { signal })[Symbol.asyncIterator]()
  const next = async (): Promise<X509SVIDResponse> => {
    const { value, done } = await messages.next()
    return done === true ? assert.fail('the stream ended') : value
  }
  return {
    next,
    async until(is: (ids: readonly string[]) => boolean): Promise<X509SVIDResponse> {
      for (;;) {
        const message = await next()
        if (is(idsOf(message))) return message
      }
    },
    [Symbol.dispose]: () => stop.abort(),
  }
}

function assertWhole({ svids }: X509SVIDResponse): void {
  for (const { spiffeId, x509Svid, x509SvidKey, bundle } of svids)
    assert.ok(x509Svid.length > 0 && x509SvidKey.length > 0 && bundle.length > 0, spiffeId)
}

/** An entry that is made all the same is removed: later checks count identities. */
async function assertNoEntry(operator: Operator, entry: NewEntry): Promise<void> {
  const made = await operator.register(entry).catch(() => undefined)
  if (made === undefined) return
  await operator.remove(made)
  assert.fail('the entry was made')
}

const steady = [
  check('WA-6', 'the first message of every stream comes within a second', async (scene) => {
    for (const [name, open] of streamsOf(scene)) {
      const delay = await delayOf(open)
      assert.ok(delay < soon, `${name}: ${Math.round(delay)} ms`)
    }
  }),
  check('WA-7', 'no second message while nothing changes', async (scene) => {
    using stream = follow(scene)
    const before = await stream.next()
    const stop = new AbortController()
    const silence = systemClock.sleep(quiet, { signal: stop.signal }).then(() => undefined)
    const following = stream.next()
    following.catch(() => {})
    const second = await Promise.race([following, silence])
    stop.abort()
    assert.ok(
      second === undefined || !equals(X509SVIDResponseSchema, before, second),
      'the same again',
    )
  }),
  check('WA-27', 'the order is the same in every answer', async (scene) => {
    const { client, served } = scene
    for (let i = 0; i < 3; i++) {
      const again = await first(client.fetchX509SVID({}, { signal: patience() }))
      assert.deepEqual(idsOf(again), idsOf(served.x509))
      const { svids } = await client.fetchJWTSVID({ audience: ['order'] })
      assert.equal(svids[0]?.spiffeId, served.x509.svids[0]?.spiffeId, 'another default identity')
    }
  }),
]

const registered = [
  check('WA-14', 'an entry has a hint of 1024 bytes, and none of 1025', async (scene) => {
    const operator = need(scene.operator)
    await operator.remove(
      await operator.register({ path: '/conformance/h', hint: 'h'.repeat(1024) }),
    )
    await assertNoEntry(operator, { path: '/conformance/h', hint: 'h'.repeat(1025) })
  }),
  check('X5-4', 'no entry without path', async (scene) => {
    await assertNoEntry(need(scene.operator), { path: '' })
  }),
  check('ID-17', 'no entry with an ID of 2049 bytes', async (scene) => {
    const { trustDomain } = scene
    const path = `/${'a'.repeat(2049 - `spiffe://${trustDomain}/`.length)}`
    await assertNoEntry(need(scene.operator), { path })
  }),
  check('ID-16', 'an ID of 2048 bytes is served in both kinds of SVID', async (scene) => {
    const operator = need(scene.operator)
    const start = `spiffe://${scene.trustDomain}/`
    const id = start + 'a'.repeat(2048 - start.length)
    const entry = await operator.register({ path: id.slice(start.length - 1) })
    using stream = follow(scene)
    try {
      assertWhole(await stream.until((ids) => ids.includes(id)))
      const { svids } = await scene.client.fetchJWTSVID({ audience: ['a'], spiffeId: id })
      assert.equal(svids[0]?.spiffeId, id)
    } finally {
      await operator.remove(entry)
      await stream.until((ids) => !ids.includes(id))
    }
  }),
]

const changes = [
  check('WA-5 WA-7', 'a change brings the whole state', async (scene) => {
    const operator = need(scene.operator)
    const id = `spiffe://${scene.trustDomain}/conformance/three`
    using stream = follow(scene)
    const before = await stream.next()
    const entry = await operator.register({ path: '/conformance/three' })
    const more = await stream.until((ids) => ids.includes(id))
    assert.deepEqual(new Set(idsOf(more)), new Set([...idsOf(before), id]))
    assertWhole(more)
    await operator.remove(entry)
    const less = await stream.until((ids) => !ids.includes(id))
    assert.deepEqual(idsOf(less), idsOf(before))
    assertWhole(less)
  }),
  check(
    'WA-27',
    'a new identity neither becomes the default nor moves the others',
    async (scene) => {
      const operator = need(scene.operator)
      const id = `spiffe://${scene.trustDomain}/conformance/a`
      using stream = follow(scene)
      const before = idsOf(await stream.next())
      const entry = await operator.register({ path: '/conformance/a' })
      const after = idsOf(await stream.until((ids) => ids.includes(id)))
      await operator.remove(entry)
      await stream.until((ids) => !ids.includes(id))
      assert.deepEqual(
        after.filter((it) => it !== id),
        before,
        'the others moved',
      )
      assert.equal(after[0], before[0], 'another default identity')
    },
  ),
  // the last one: afterwards this process has no identity
  check('WA-28 WA-11 WA-17 WA-19', 'PermissionDenied once nothing is registered', async (scene) => {
    const operator = need(scene.operator)
    using stream = follow(scene)
    await stream.next()
    await operator.remove(...scene.entries)
    const { code } = await refusal(stream.until(() => false))
    assert.equal(code, Code.PermissionDenied)
    const { client } = scene
    const signal = patience()
    await assertRefused(first(client.fetchX509SVID({}, { signal })), Code.PermissionDenied)
    await assertRefused(first(client.fetchX509Bundles({}, { signal })), Code.PermissionDenied)
    await assertRefused(client.fetchJWTSVID({ audience: ['a'] }), Code.PermissionDenied)
  }),
]

export const streamChecks = [...steady, ...registered, ...changes]
