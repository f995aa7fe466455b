// Whether the authority says that it is ready when it is, and nothing is signed when it cannot store.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Records } from '../../proto/gen/castellan/records/v1/records_pb.js'
import {
  Health,
  HealthCheckResponse_ServingStatus,
} from '../../proto/gen/grpc/health/v1/health_pb.js'
import { SVID } from '../../proto/gen/spire/api/server/svid/v1/svid_pb.js'
import { startTestCa, type TestCa } from '../support/ca.ts'
import { type Connection, connectLocally, denialOf, newKeys } from '../support/ca-client.ts'
import { makeCsr, requestedNames } from '../support/csr.ts'

// the tables themselves need about 40
const mostPages = 70
let ca: TestCa
let local: Connection
beforeAll(async () => {
  ca = await startTestCa({ database: { mostPages } })
  local = connectLocally(ca.running.socket)
})
afterAll(async () => {
  local[Symbol.dispose]()
  await ca[Symbol.asyncDispose]()
})

async function ask(path: string): Promise<{ status: number; text: string }> {
  const answer = await fetch(`http://127.0.0.1:${ca.running.operationsPort}${path}`)
  return { status: answer.status, text: await answer.text() }
}

const id = 'spiffe://example.org/filler'
const mint = () =>
  local.client(SVID).mintX509SVID({
    csr: makeCsr(newKeys(), { attributes: [requestedNames([0x86, id])] }),
  })

async function serving(): Promise<string | undefined> {
  const { status } = await local.client(Health).check({})
  return HealthCheckResponse_ServingStatus[status]
}

describe('an authority whose disk fills up', () => {
  it('is ready as long as it can sign and store', async () => {
    expect(await ask('/readyz')).toEqual({ status: 200, text: 'ok\n' })
    expect(await serving()).toBe('SERVING')
    expect((await ask('/metrics')).text).toMatch(/^castellan_ca_ready 1$/m)
  })

  it('then delivers nothing that it could not record, and says that it is not ready', async () => {
    let delivered = 0
    let denial = await denialOf(mint())
    while (denial === undefined && delivered < 1000) {
      delivered++
      denial = await denialOf(mint())
    }
    expect(denial).toEqual({
      code: 'Internal',
      message: 'the store failed: database or disk is full',
    })
    expect(delivered).toBeGreaterThan(3)
    const { certificates } = await local
      .client(Records)
      .listIssued({ spiffeId: id, pageSize: 1000 })
    expect(certificates).toHaveLength(delivered)
    expect(await serving()).toBe('NOT_SERVING')
    expect(await ask('/readyz')).toEqual({
      status: 503,
      text: 'not ready: the store failed: database or disk is full\n',
    })
    expect(await serving()).toBe('NOT_SERVING')
    expect((await ask('/metrics')).text).toMatch(/^castellan_ca_ready 0$/m)
    expect((await ask('/metrics')).text).toMatch(/store_commit_seconds_count\{done="false"\} \d/)
    expect(await ask('/livez')).toEqual({ status: 200, text: 'ok\n' })
  })
})
