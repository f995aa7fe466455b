import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Acknowledgements, openAcknowledgements } from '../../ca/acknowledgements.ts'
import type { Store } from '../../ca/store/store.ts'
import type { Clock } from '../../runtime/clock.ts'
import { parseSpiffeId, type SpiffeId } from '../../spiffe/id.ts'
import { createFakeClock, type FakeClock } from '../support/fake-clock.ts'
import { testStore } from '../support/store.ts'

const a = parseSpiffeId('spiffe://example.org/spire/agent/a')
const b = parseSpiffeId('spiffe://example.org/spire/agent/b')

let clock: FakeClock
let banned: SpiffeId | undefined
let all: Acknowledgements
let store: Store
let published: number

async function open(by: Clock = clock): Promise<void> {
  all = await openAcknowledgements({
    ...{ clock: by, store },
    isAgent: (id) => id !== banned,
    sequence: () => published,
  })
}

beforeEach(async () => {
  clock = createFakeClock(1_900_000_000_000)
  banned = undefined
  published = 5
  store = await testStore({ clock })
  await open()
})
afterEach(() => store[Symbol.asyncDispose]())
const lagging = async (sequence: number) =>
  (await all.laggards(sequence)).map(({ agentId }) => agentId)

describe('what the rotation waits for', () => {
  it('is nobody before an agent was heard', async () => {
    expect(await lagging(5)).toEqual([])
  })

  it('is an agent that has put less to use than was published', async () => {
    all.acknowledge(a, 4)
    all.acknowledge(b, 5)
    expect(await all.laggards(5)).toEqual([{ agentId: a, acknowledged: 4, heardAt: clock.now() }])
    all.acknowledge(a, 6)
    expect(await lagging(5)).toEqual([])
    all.acknowledge(a, 3)
    expect(await lagging(5), 'what was put to use once stays so').toEqual([])
  })

  it('is a stock agent until it was answered with that bundle twice', async () => {
    all.answered(a, 5)
    expect(await lagging(5)).toEqual([a])
    all.answered(a, 5)
    expect(await lagging(5)).toEqual([])
    all.answered(a, 6)
    expect(await lagging(6)).toEqual([a])
    expect(await lagging(5)).toEqual([])
  })

  it('is nobody who was silent for three intervals: of a stream, of a poll', async () => {
    all.acknowledge(a, 1)
    all.answered(b, 1)
    await clock.advance(15_000)
    expect(await lagging(2)).toEqual([a, b])
    await clock.advance(1)
    expect(await lagging(2)).toEqual([a])
    await clock.advance(45_000)
    expect(await all.connected()).toEqual([])
  })

  it('is nobody who was banned or deleted meanwhile', async () => {
    all.acknowledge(a, 1)
    banned = a
    expect(await lagging(2)).toEqual([])
  })

  it('is an agent that was heard before the start, until it is back or was silent for a minute', async () => {
    all.acknowledge(a, 4)
    all.acknowledge(b, 4)
    await all.keep()
    await open()
    expect(await lagging(5)).toEqual([a, b])
    all.acknowledge(a, 5)
    expect(await lagging(5)).toEqual([b])
    await clock.advance(60_001)
    expect(await lagging(5)).toEqual([])
  })

  it('is in the store: what was put to use before the start need not be said again', async () => {
    all.acknowledge(a, 5)
    all.acknowledge(b, 4)
    await all.keep()
    await open()
    expect(await lagging(5)).toEqual([b])
    published = 6
    all.acknowledge(a, 6)
    await all.keep()
    expect((await store.acknowledgements.list()).map(({ cursor }) => cursor)).toEqual([6, 4])
  })

  it('is an agent of another replica too, and one that came back from there is not lost', async () => {
    all.acknowledge(a, 5)
    await all.keep()
    const row = { agentId: a, replica: 'other', cursor: 3, patience: 60_000 }
    await store.acknowledgements.put([{ ...row, heardAt: clock.now() + 1 }])
    expect(await all.laggards(5)).toMatchObject([{ agentId: a, acknowledged: 3 }])
    await clock.advance(2)
    all.acknowledge(a, 5)
    expect(await lagging(5)).toEqual([])
    expect(await all.connected()).toEqual([a])
  })

  it('is written once for each bundle, and taken out when the agent is away', async () => {
    all.acknowledge(a, 5)
    await all.keep()
    all.acknowledge(a, 8)
    await all.keep()
    expect(await store.acknowledgements.list()).toMatchObject([{ agentId: a, cursor: 5 }])
    await clock.advance(60_001)
    await all.keep()
    expect(await store.acknowledgements.list()).toEqual([])
  })

  it('is the same whatever an operator does to the clock', async () => {
    let offset = 0
    const stepped = { ...clock, now: () => clock.now() + offset, monotonic: clock.monotonic }
    await open(stepped)
    all.acknowledge(a, 4)
    for (const hours of [1, -1]) {
      offset = hours * 3_600_000
      expect(await lagging(5)).toEqual([a])
    }
  })
})
