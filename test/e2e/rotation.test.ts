// All three kinds of keys rotate under traffic, while the only agent stands still for a part of it.
import { readFileSync } from 'node:fs'
import { expect, it, onTestFinished, vi } from 'vitest'
import { startMesh } from '../../cli/dev/mesh.ts'
import { startTraffic } from '../../cli/dev/traffic.ts'
import { Authorities } from '../../proto/gen/castellan/authority/v1/authorities_pb.js'
import { LocalAuthority } from '../../proto/gen/spire/api/server/localauthority/v1/localauthority_pb.js'
import { systemClock } from '../../runtime/clock.ts'
import { type Connection, connectLocally, denialOf } from '../support/ca-client.ts'

const patience = { timeout: 150_000, interval: 500 }
const kinds = ['x509', 'jwt', 'wit'] as const

/** Prepares a key of each kind; gives the steps that follow. */
async function prepareAll(connection: Connection) {
  const local = connection.client(LocalAuthority)
  const prepared = {
    x509: (await local.prepareX509Authority({})).preparedAuthority,
    jwt: (await local.prepareJWTAuthority({})).preparedAuthority,
    wit: (await local.prepareWITAuthority({})).preparedAuthority,
  }
  const taint = {
    x509: (authorityId: string) => local.taintX509Authority({ authorityId }),
    jwt: (authorityId: string) => local.taintJWTAuthority({ authorityId }),
    wit: (authorityId: string) => local.taintWITAuthority({ authorityId }),
  }
  return kinds.map((kind) => ({
    kind,
    authorityId: prepared[kind]?.authorityId ?? '',
    taint: taint[kind],
  }))
}

it('waits for an agent that stands still, then goes on, and no request fails', async () => {
  const stop = new AbortController()
  await using stack = new AsyncDisposableStack()
  onTestFinished(() => stop.abort())
  const mesh = stack.use(
    await startMesh({ svidLifetime: '60s', agentLifetime: '300s', signal: stop.signal }),
  )
  const traffic = stack.use(
    startTraffic(mesh.toPayments, '/balance', { clock: systemClock, lanes: 3, pause: 20 }),
  )
  await vi.waitFor(() => expect(traffic.sent).toBeGreaterThan(20), patience)
  const connection = stack.use(connectLocally(mesh.caSocket))
  const authorities = connection.client(Authorities)
  const phases = async () =>
    (await authorities.getStatus({})).authorities.map(({ kind, phase }) => `${kind} ${phase}`)
  const before = (await authorities.getStatus({})).authorities

  const agent = mesh.pids().find((pid) => {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('agent.yaml')
  })
  if (agent === undefined) throw new Error('there is no agent')
  process.kill(agent, 'SIGSTOP')
  stack.defer(() => void process.kill(agent, 'SIGCONT'))
  const next = await prepareAll(connection)
  for (const { kind, authorityId } of next) {
    expect(await denialOf(authorities.activate({ kind, authorityId }))).toMatchObject({
      code: 'FailedPrecondition',
      message: expect.stringMatching(
        /^cannot activate yet: the bundle in force is not acknowledged by spiffe:/,
      ),
    })
  }
  const { laggards } = await authorities.getStatus({})
  expect(laggards).toHaveLength(1)

  process.kill(agent, 'SIGCONT')
  for (const { kind, authorityId, taint } of next) {
    await vi.waitFor(() => authorities.activate({ kind, authorityId }), patience)
    const old = before.find((it) => it.kind === kind)?.id ?? ''
    await taint(old)
    await vi.waitFor(() => authorities.revoke({ kind, authorityId: old }), patience)
  }
  expect((await phases()).sort()).toEqual(['jwt active', 'wit active', 'x509 active'])
  const { sent } = traffic
  await vi.waitFor(() => expect(traffic.sent).toBeGreaterThan(sent + 20), patience)
  expect(traffic.failures).toEqual([])
  expect(traffic.failed).toBe(0)
}, 480_000)
