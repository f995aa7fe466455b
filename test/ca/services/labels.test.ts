import { describe, expect, it } from 'vitest'
import { Control } from '../../../proto/gen/castellan/control/v1/control_pb.js'
import { Labels } from '../../../proto/gen/castellan/entry/v1/labels_pb.js'
import { Entry } from '../../../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import { denialOf } from '../../support/ca-client.ts'
import { sharedCa } from '../../support/shared-ca.ts'

const ca = sharedCa()
const labels = () => ca.local.client(Labels)
const entries = () => ca.local.client(Entry)

async function register(path: string, parent = '/spire/agent/x'): Promise<string> {
  const entry = {
    spiffeId: { trustDomain: 'example.org', path },
    parentId: { trustDomain: 'example.org', path: parent },
    selectors: [{ type: 'unix', value: `path:${path}` }],
  }
  const { results } = await entries().batchCreateEntry({ entries: [entry] })
  return results[0]?.entry?.id ?? ''
}

describe('castellan.entry.v1.Labels', () => {
  it('sets, removes and lists them, of those named and of all', async () => {
    const [a, b] = [await register('/a'), await register('/b')]
    const set = { app: 'web', tier: 'front' }
    expect(await labels().updateLabels({ entryId: a, set })).toMatchObject({ labels: set })
    const after = await labels().updateLabels({ entryId: a, set: { app: 'api' }, remove: ['tier'] })
    expect(after).toMatchObject({ entryId: a, labels: { app: 'api' } })
    const one = await labels().listLabels({ entryIds: [a, b, 'nobody'] })
    expect(one.entries).toMatchObject([{ entryId: a, labels: { app: 'api' } }])
    await labels().updateLabels({ entryId: b, set: { app: 'b' } })
    const first = await labels().listLabels({ pageSize: 1 })
    const second = await labels().listLabels({ pageSize: 1, pageToken: first.nextPageToken })
    const found = [...first.entries, ...second.entries].map(({ entryId }) => entryId)
    expect([found, second.nextPageToken]).toEqual([[a, b].sort(), ''])
  })

  it('stay when SPIRE changes the entry, leave its revision, and go with it', async () => {
    const id = await register('/kept')
    await labels().updateLabels({ entryId: id, set: { app: 'kept' } })
    const before = await entries().getEntry({ id })
    expect(before.revisionNumber).toBe(0n)
    const { results } = await entries().batchUpdateEntry({
      entries: [{ ...before, dnsNames: ['kept.example'] }],
    })
    expect(results[0]?.status?.code).toBe(0)
    const mine = () => labels().listLabels({ entryIds: [id] })
    expect((await mine()).entries).toMatchObject([{ labels: { app: 'kept' } }])
    await entries().batchDeleteEntry({ ids: [id] })
    expect((await mine()).entries).toEqual([])
    await entries().batchCreateEntry({ entries: [before] })
    expect((await mine()).entries).toEqual([])
  })

  it('refuses what is no label, and entries that are none', async () => {
    const entryId = await register('/refused')
    expect(await denialOf(labels().updateLabels({ entryId, set: { 'a b': 'x' } }))).toMatchObject({
      code: 'InvalidArgument',
      message: expect.stringContaining('"a b" is no label'),
    })
    expect(await denialOf(labels().updateLabels({ entryId: 'nobody', set: { a: 'x' } }))).toEqual({
      code: 'NotFound',
      message: 'entry nobody not found',
    })
  })

  it('travel to the agent with their entry, at once and when it comes back', async () => {
    const agent = await ca.join()
    const id = await register('/mine', agent.id.replace('spiffe://example.org', ''))
    await labels().updateLabels({ entryId: id, set: { app: 'one' } })
    using remote = ca.remote(agent)
    const stop = new AbortController()
    async function* hello() {
      yield { message: { case: 'hello' as const, value: {} } }
      await new Promise((resolve) => stop.signal.addEventListener('abort', resolve))
    }
    const stream = remote.client(Control).subscribe(hello())[Symbol.asyncIterator]()
    const { value: first } = await stream.next()
    expect(first?.labels).toMatchObject([{ entryId: id, labels: { app: 'one' } }])
    await labels().updateLabels({ entryId: id, set: { app: 'two' } })
    const { value: second } = await stream.next()
    expect(second).toMatchObject({ snapshot: false, entries: [{ id }] })
    expect(second?.labels).toMatchObject([{ entryId: id, labels: { app: 'two' } }])
    await labels().updateLabels({ entryId: id, remove: ['app'] })
    const { value: third } = await stream.next()
    expect(third).toMatchObject({ entries: [{ id }], labels: [] })
    stop.abort()
  })
})
