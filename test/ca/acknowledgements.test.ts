import { beforeEach, describe, expect, it } from 'vitest'
import { type Acknowledgements, createAcknowledgements } from '../../ca/acknowledgements.ts'
import { parseSpiffeId, type SpiffeId } from '../../spiffe/id.ts'
import { createFakeClock, type FakeClock } from '../support/fake-clock.ts'

const a = parseSpiffeId('spiffe://example.org/spire/agent/a')
const b = parseSpiffeId('spiffe://example.org/spire/agent/b')

let clock: FakeClock
let banned: SpiffeId | undefined
let all: Acknowledgements
beforeEach(() => {
  clock = createFakeClock(1_900_000_000_000)
  banned = undefined
  all = createAcknowledgements(clock, (id) => id !== banned)
})
const lagging = (sequence: number) => all.laggards(sequence).map(({ agentId }) => agentId)

describe('what the rotation waits for', () => {
  it('is nobody before an agent was heard', () => {
    expect(lagging(5)).toEqual([])
  })

  it('is an agent that has put less to use than was published', () => {
    all.acknowledge(a, 4)
    all.acknowledge(b, 5)
    expect(all.laggards(5)).toEqual([{ agentId: a, acknowledged: 4, heardAt: clock.now() }])
    all.acknowledge(a, 6)
    expect(lagging(5)).toEqual([])
    all.acknowledge(a, 3)
    expect(lagging(5), 'what was put to use once stays so').toEqual([])
  })

  it('is a stock agent until it was answered with that bundle twice', () => {
    all.answered(a, 5)
    expect(lagging(5)).toEqual([a])
    all.answered(a, 5)
    expect(lagging(5)).toEqual([])
    all.answered(a, 6)
    expect(lagging(6)).toEqual([a])
    expect(lagging(5)).toEqual([])
  })

  it('is nobody who was silent for three intervals: of a stream, of a poll', async () => {
    all.acknowledge(a, 1)
    all.answered(b, 1)
    await clock.advance(15_000)
    expect(lagging(2)).toEqual([a, b])
    await clock.advance(1)
    expect(lagging(2)).toEqual([a])
    await clock.advance(45_000)
    expect(all.connected()).toEqual([])
  })

  it('is nobody who was banned or deleted meanwhile', () => {
    all.acknowledge(a, 1)
    banned = a
    expect(lagging(2)).toEqual([])
  })

  it('is an agent that was known before the start, until it is back or was silent for a minute', async () => {
    all = createAcknowledgements(clock, (id) => id !== banned, [a, b])
    expect(lagging(5)).toEqual([a, b])
    all.acknowledge(a, 5)
    expect(lagging(5)).toEqual([b])
    await clock.advance(60_001)
    expect(lagging(5)).toEqual([])
  })

  it('is the same whatever an operator does to the clock', () => {
    let offset = 0
    const stepped = { ...clock, now: () => clock.now() + offset, monotonic: clock.monotonic }
    all = createAcknowledgements(stepped, () => true)
    all.acknowledge(a, 4)
    for (const hours of [1, -1]) {
      offset = hours * 3_600_000
      expect(lagging(5)).toEqual([a])
    }
  })
})
