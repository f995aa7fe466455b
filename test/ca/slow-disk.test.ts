// A disk that takes a quarter of a second for each commit.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Records } from '../../proto/gen/castellan/records/v1/records_pb.js'
import { SVID } from '../../proto/gen/spire/api/server/svid/v1/svid_pb.js'
import { startTestCa, type TestCa } from '../support/ca.ts'
import { type Connection, connectLocally, newKeys } from '../support/ca-client.ts'
import { makeCsr, requestedNames } from '../support/csr.ts'

const halt = new Int32Array(new SharedArrayBuffer(4))
let isSlow = false
let commits = 0
let ca: TestCa
let local: Connection
beforeAll(async () => {
  const beforeStatement = (sql: string) => {
    if (!isSlow || sql !== 'COMMIT') return
    commits++
    // as fsync does it: the whole program waits
    Atomics.wait(halt, 0, 0, 250)
  }
  ca = await startTestCa({ database: { beforeStatement } })
  local = connectLocally(ca.running.socket)
})
afterAll(async () => {
  isSlow = false
  local[Symbol.dispose]()
  await ca[Symbol.asyncDispose]()
})

describe('an authority on a slow disk', () => {
  it('answers many with few commits, and has recorded whatever it has answered', async () => {
    const ids = Array.from({ length: 40 }, (_, i) => `spiffe://example.org/slow/${i}`)
    const csrs = ids.map((id) => makeCsr(newKeys(), { attributes: [requestedNames([0x86, id])] }))
    isSlow = true
    const answers = await Promise.all(csrs.map((csr) => local.client(SVID).mintX509SVID({ csr })))
    isSlow = false
    expect(answers.every(({ svid }) => svid !== undefined)).toBe(true)
    // two for each of them, were they not shared
    expect(commits).toBeLessThan(40)
    const { certificates } = await local.client(Records).listIssued({ pageSize: 1000 })
    const recorded = new Set(certificates.map(({ spiffeId }) => spiffeId))
    expect(ids.filter((id) => !recorded.has(id))).toEqual([])
  }, 120_000)
})
