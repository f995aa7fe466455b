import { describe, expect, it } from 'vitest'
import { createLatest, createTopic, every, run } from '../../runtime/lifecycle.ts'
import { createFakeClock } from '../support/fake-clock.ts'

describe('a loop', () => {
  it('is stopped by its signal, and disposing waits until it has returned', async () => {
    const steps: string[] = []
    const loop = run(async (signal) => {
      await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()))
      await Promise.resolve()
      steps.push('cleaned up')
    })
    await loop[Symbol.asyncDispose]()
    expect(steps).toEqual(['cleaned up'])
    await loop[Symbol.asyncDispose]()
    await expect(loop.done).resolves.toBe(undefined)
  })

  it('that fails by itself says so, and one that was stopped does not', async () => {
    const boom = new Error('boom')
    await expect(run(() => Promise.reject(boom)).done).rejects.toBe(boom)
    const stopped = run(async (signal) => {
      await createFakeClock(0).sleep(1, { signal })
    })
    await stopped[Symbol.asyncDispose]()
    await expect(stopped.done).resolves.toBe(undefined)
  })

  it('every so often never overlaps itself', async () => {
    const clock = createFakeClock(0)
    const seen: string[] = []
    let finish = () => {}
    const loop = every(clock, 100, async () => {
      seen.push(`start ${clock.now()}`)
      await new Promise<void>((resolve) => {
        finish = resolve
      })
      seen.push(`end ${clock.now()}`)
    })
    await clock.advance(100)
    await clock.advance(500)
    finish()
    await clock.advance(0)
    await clock.advance(100)
    expect(seen).toEqual(['start 100', 'end 600', 'start 700'])
    finish()
    await loop[Symbol.asyncDispose]()
    expect(clock.sleepers).toBe(0)
  })
})

describe('a topic', () => {
  it('tells who listens, in order, until they leave', () => {
    const topic = createTopic<number>()
    const seen: string[] = []
    const first = topic.subscribe((value) => seen.push(`first ${value}`))
    topic.subscribe((value) => {
      seen.push(`second ${value}`)
      first[Symbol.dispose]()
    })
    topic.publish(1)
    topic.publish(2)
    expect(seen).toEqual(['first 1', 'second 1', 'second 2'])
    expect(topic.size).toBe(1)
  })
})

describe('a mailbox of one place', () => {
  it('gives a slow reader the newest, and loses no last word', async () => {
    const stop = new AbortController()
    using box = createLatest<number>(stop.signal)
    const reader = box[Symbol.asyncIterator]()
    box.push(1)
    box.push(2)
    expect(await reader.next()).toEqual({ value: 2, done: false })
    const next = reader.next()
    box.push(3)
    expect(await next).toEqual({ value: 3, done: false })
    box.push(4)
    expect(await reader.next()).toEqual({ value: 4, done: false })
    const last = reader.next()
    stop.abort()
    expect(await last).toEqual({ value: undefined, done: true })
  })

  it('says when its reader has dealt with what was put in: when it comes for more', async () => {
    const box = createLatest<number>(new AbortController().signal)
    const reader = box[Symbol.asyncIterator]()
    expect(box.caughtUp()).toBe(undefined)
    box.push(1)
    const first = box.caughtUp()
    await reader.next()
    expect(box.caughtUp()).toBe(first)
    box.push(2)
    expect(box.caughtUp()).toBe(first)
    await reader.next()
    expect(box.caughtUp()).toBe(first)
    const next = reader.next()
    await first
    expect(box.caughtUp()).toBe(undefined)
    box.push(3)
    await next
    const last = box.caughtUp()
    // a stream that has ended has nothing to deal with
    box[Symbol.dispose]()
    await last
  })

  it('gives undefined and false as what they are', async () => {
    using box = createLatest<boolean | undefined>(new AbortController().signal)
    const reader = box[Symbol.asyncIterator]()
    for (const value of [undefined, false]) {
      box.push(value)
      expect(await reader.next()).toEqual({ value, done: false })
    }
  })
})
