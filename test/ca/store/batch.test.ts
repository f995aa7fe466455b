import { describe, expect, it } from 'vitest'
import { createBatch } from '../../../ca/store/batch.ts'

describe('a batch', () => {
  it('hands over together what came in one turn', async () => {
    const flushed: (readonly number[])[] = []
    const add = createBatch<number>(async (items) => void flushed.push(items))
    await Promise.all([1, 2, 3].map(add))
    await add(4)
    expect(flushed).toEqual([[1, 2, 3], [4]])
  })

  it('settles all of them alike, and goes on', async () => {
    const boom = new Error('boom')
    let broken = true
    const add = createBatch<number>(async () => {
      if (broken) throw boom
    })
    const all = await Promise.allSettled([add(1), add(2)])
    expect(all).toEqual([
      { status: 'rejected', reason: boom },
      { status: 'rejected', reason: boom },
    ])
    broken = false
    await expect(add(3)).resolves.toBe(undefined)
  })
})
