// One loop over all who are followed: when it looks, how much at once, and that it rests.
import { expect, it } from 'vitest'
import type { PeerProcess } from '../../../agent/attest/peer-credentials.ts'
import { createWatch, type Watched } from '../../../agent/attest/watch.ts'
import type { Clock } from '../../../runtime/clock.ts'
import { createFakeClock } from '../../support/fake-clock.ts'
import { peer } from './recorded.ts'

function followed(count: number, clock: Clock) {
  const ended = new Set<PeerProcess>()
  const polls: number[] = []
  const watch = createWatch({
    clock,
    processes: {
      ended(all) {
        const pinned = [...all]
        polls.push(pinned.length)
        return pinned.filter((it) => ended.has(it))
      },
    },
  })
  const events: string[] = []
  const looks = new Map<number, number[]>()
  const add = (pid: number) => {
    const times: number[] = []
    looks.set(pid, times)
    const watched: Watched = {
      process: peer(pid),
      look: () => void times.push(clock.monotonic()),
      ended: () => void events.push(`${pid} has ended`),
    }
    return { watched, following: watch.add(watched) }
  }
  const all = Array.from({ length: count }, (_, i) => add(i + 1))
  return { add, all, looks, events, polls, end: (process: PeerProcess) => ended.add(process) }
}

it('each is looked at once in three seconds, no more than a thirtieth of them at once', async () => {
  const clock = createFakeClock()
  const { looks } = followed(300, clock)
  await clock.asleep()
  await clock.advance(9000)
  const each = [...looks.values()]
  expect(each.every((times) => times.length === 3)).toBe(true)
  const atOnce = Map.groupBy(each.flat(), (time) => time)
  expect(Math.max(...[...atOnce.values()].map((them) => them.length))).toBe(10)
})

it('the ends of all are asked for by one call each second; each is told once', async () => {
  const clock = createFakeClock()
  const { all, events, polls, end } = followed(100, clock)
  await clock.asleep()
  await clock.advance(1000)
  expect(polls).toEqual([100])
  const [first, second] = all
  if (first !== undefined) end(first.watched.process)
  if (second !== undefined) end(second.watched.process)
  await clock.advance(2000)
  expect(events).toEqual(['1 has ended', '2 has ended'])
  expect(polls).toEqual([100, 100, 98])
})

it('a loop that was held up looks at everybody once, not once for each time that it missed', async () => {
  let now = 0
  const late: Clock = {
    now: () => now,
    monotonic: () => now,
    async sleep(_, { signal }) {
      signal.throwIfAborted()
      now += 60_000
      if (now > 60_000)
        await new Promise((_resolve, reject) => signal.addEventListener('abort', reject))
    },
  }
  const { looks, polls } = followed(60, late)
  await new Promise((resolve) => setImmediate(resolve))
  expect([...looks.values()].every((times) => times.length === 1)).toBe(true)
  expect(polls).toEqual([60])
})

it('nothing runs while nobody is followed', async () => {
  const clock = createFakeClock()
  const { add, all, polls } = followed(2, clock)
  await clock.asleep()
  for (const { following } of all) following[Symbol.dispose]()
  await clock.advance(5000)
  expect(clock.sleepers).toBe(0)
  expect(polls).toEqual([])
  const { following } = add(7)
  await clock.asleep()
  await clock.advance(1000)
  expect(polls).toEqual([1])
  following[Symbol.dispose]()
})
