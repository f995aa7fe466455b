import { Socket } from 'node:net'
import { describe, expect, it } from 'vitest'
import type { Caller } from '../../../agent/attest/caller.ts'
import { admitPerUser, crowdLimits, mostDescriptors } from '../../../agent/attest/crowd.ts'
import { memoryLog } from '../../support/ca.ts'
import { refusalOf } from '../../support/refusal.ts'

function callerOf(uid: number, gone: number[]): Caller {
  const nothing = { [Symbol.dispose]: () => {} }
  return {
    process: { pid: 1, uid, gid: uid, isAlive: () => true, ...nothing },
    attest: () => Promise.reject(new Error('not asked')),
    onChange: () => nothing,
    [Symbol.dispose]: () => void gone.push(uid),
  }
}

/** A door with `limits`; connections are of the user that is asked for. */
function door(limits: { readonly perUser: number; readonly all: number }) {
  const gone: number[] = []
  const { log, lines } = memoryLog()
  let uid = 0
  const admit = admitPerUser(() => callerOf(uid, gone), { ...limits, log })
  return {
    ...{ gone, lines },
    connect(of: number) {
      uid = of
      return admit(new Socket())
    },
  }
}

describe('connections of one user', () => {
  it('are bounded, others are let in all the same, and one that ends makes room', () => {
    const { connect, gone } = door({ perUser: 2, all: 8 })
    const [first] = [connect(1000), connect(1000)]
    expect(refusalOf(() => connect(1000))).toEqual({
      code: 'ERR_EXHAUSTED',
      message: 'user 1000 has 2 connections already',
    })
    expect(gone).toEqual([1000])
    connect(1001)
    first[Symbol.dispose]()
    // twice is once
    first[Symbol.dispose]()
    connect(1000)
    expect(refusalOf(() => connect(1000))).toMatchObject({ code: 'ERR_EXHAUSTED' })
  })

  it('of all users together are bounded too', () => {
    const { connect } = door({ perUser: 2, all: 3 })
    const [first] = [connect(1), connect(2), connect(3)]
    expect(refusalOf(() => connect(4))).toEqual({
      code: 'ERR_EXHAUSTED',
      message: 'this agent has 3 connections already',
    })
    first[Symbol.dispose]()
    connect(4)
  })

  it('that are refused are logged once, and again after there was room', () => {
    const { connect, lines } = door({ perUser: 2, all: 8 })
    const open = [connect(1000), connect(1000)]
    for (let i = 0; i < 5; i++) refusalOf(() => connect(1000))
    expect(lines).toEqual([expect.stringContaining('connections are refused: user 1000 has 2')])
    for (const it of open) it[Symbol.dispose]()
    for (let i = 0; i < 5; i++) refusalOf(() => connect(1000))
    expect(lines).toHaveLength(2)
  })
})

describe('how many there may be', () => {
  const limits = 'Max processes  7  7 processes\nMax open files            1256    4096    files\n'

  it.each([
    ['enough descriptors: four users', 4096, 1_048_576, { perUser: 4096, all: 16_384 }],
    [
      'fewer: two descriptors each, one user takes no more than half',
      4096,
      1256,
      { perUser: 250, all: 500 },
    ],
    ['hardly any: one, and one for another user', 4096, 256, { perUser: 1, all: 2 }],
    ['no limit', 10, undefined, { perUser: 10, all: 40 }],
  ])('%s', (_what, wanted, descriptors, expected) => {
    expect(crowdLimits(wanted, descriptors)).toEqual(expected)
  })

  it('follows from what the kernel says of this process', () => {
    expect(mostDescriptors(limits)).toBe(1256)
    expect(mostDescriptors('Max open files            unlimited   unlimited  files\n')).toBe(
      undefined,
    )
  })
})
