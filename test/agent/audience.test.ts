// Whom an acknowledgement waits for: streams, then what carries them, and nobody for longer than half a minute.
import { describe, expect, it, vi } from 'vitest'
import { createAudience } from '../../agent/audience.ts'
import { createLatest } from '../../runtime/lifecycle.ts'
import { createFakeClock } from '../support/fake-clock.ts'

const never = new AbortController().signal

/** A stream that deals with what it is told when the test says so. */
function createStream() {
  const box = createLatest<true>(never)
  const reader = box[Symbol.asyncIterator]()
  let next: Promise<unknown> | undefined
  return {
    box,
    tell: () => box.push(true),
    /** Takes what is there and comes for more. */
    async read() {
      await (next ?? reader.next())
      next = reader.next()
    },
  }
}

async function hasDone(work: Promise<unknown>): Promise<boolean> {
  const done = vi.fn()
  work.then(done)
  for (let i = 0; i < 3; i++) await new Promise((resolve) => setImmediate(resolve))
  return done.mock.calls.length > 0
}

describe('an audience', () => {
  it('is waited for until every stream has dealt with what it was told', async () => {
    const audience = createAudience(createFakeClock())
    const [first, second] = [createStream(), createStream()]
    using _first = audience.follow(first.box)
    using _second = audience.follow(second.box)
    expect(await hasDone(audience.caughtUp(never))).toBe(true)
    first.tell()
    second.tell()
    const told = audience.caughtUp(never)
    await first.read()
    expect(await hasDone(told)).toBe(false)
    await second.read()
    await told
  })

  it('has streams that hear from others, and sockets that carry all of them', async () => {
    const audience = createAudience(createFakeClock())
    const [first, second] = [createStream(), createStream()]
    using _first = audience.follow(first.box)
    using _second = audience.follow(second.box)
    const read = Promise.withResolvers<void>()
    const server = { caughtUp: vi.fn(() => read.promise) }
    using _server = audience.carry(server)
    first.tell()
    const told = audience.caughtUp(never)
    second.tell()
    await first.read()
    expect(await hasDone(told)).toBe(false)
    expect(server.caughtUp).not.toHaveBeenCalled()
    await second.read()
    expect(await hasDone(told)).toBe(false)
    read.resolve()
    await told
  })

  it('with one that is stuck is waited for once, for half a minute, and for it again after it went on', async () => {
    const clock = createFakeClock()
    const audience = createAudience(clock)
    const stuck = createStream()
    using _ = audience.follow(stuck.box)
    stuck.tell()
    const told = audience.caughtUp(never)
    await clock.advance(29_000)
    expect(await hasDone(told)).toBe(false)
    await clock.advance(1000)
    await told
    await audience.caughtUp(never)
    await stuck.read()
    await audience.caughtUp(never)
    stuck.tell()
    const again = audience.caughtUp(never)
    expect(await hasDone(again)).toBe(false)
    await stuck.read()
    await again
    expect(clock.sleepers).toBe(0)
  })

  it('is not waited for by one that is stopped, nor for one that has gone', async () => {
    const audience = createAudience(createFakeClock())
    const stream = createStream()
    const following = audience.follow(stream.box)
    stream.tell()
    const stop = new AbortController()
    const told = audience.caughtUp(stop.signal)
    stop.abort(new Error('stopped'))
    await expect(told).rejects.toThrow('stopped')
    following[Symbol.dispose]()
    await audience.caughtUp(never)
  })
})
