import { Socket } from 'node:net'
import { describe, expect, it } from 'vitest'
import type { Caller } from '../../../agent/attest/caller.ts'
import { admitPerUser } from '../../../agent/attest/crowd.ts'
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

describe('connections of one user', () => {
  it('are bounded, others are let in all the same, and one that ends makes room', () => {
    const gone: number[] = []
    let uid = 1000
    const admit = admitPerUser(() => callerOf(uid, gone), 2)
    const connect = () => admit(new Socket())
    const [first] = [connect(), connect()]
    expect(refusalOf(connect)).toEqual({
      code: 'ERR_EXHAUSTED',
      message: 'user 1000 has 2 connections already',
    })
    expect(gone).toEqual([1000])
    uid = 1001
    connect()
    uid = 1000
    first[Symbol.dispose]()
    // twice is once
    first[Symbol.dispose]()
    connect()
    expect(refusalOf(connect)).toMatchObject({ code: 'ERR_EXHAUSTED' })
  })
})
