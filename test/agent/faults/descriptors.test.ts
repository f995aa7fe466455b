// An agent that may open few files: its sockets are at their limit, and it knows.
import { once } from 'node:events'
import http2, { type ClientHttp2Session } from 'node:http2'
import { connect } from 'node:net'
import { expect, it } from 'vitest'
import { startX509Source } from '../../../client/x509-source.ts'
import { startAgentProcess } from '../../support/agent-process.ts'

/** Undefined for a connection that is served, and why not for one that is refused. */
async function connected(path: string): Promise<{
  readonly session: ClientHttp2Session
  readonly refusal: string | undefined
}> {
  const session = http2.connect('http://localhost', { createConnection: () => connect(path) })
  session.on('error', () => {})
  const goaway = once(session, 'goaway')
  const { promise: served, resolve } = Promise.withResolvers<undefined>()
  session.once('remoteSettings', () => {
    // one that was refused has nobody to answer
    if (!session.destroyed) session.ping((error) => error === null && resolve(undefined))
  })
  const first = await Promise.race([goaway, served])
  return { session, refusal: first === undefined ? undefined : String(first[2]) }
}

it('with few file descriptors refuses connections with the reason, and serves on', async () => {
  // 22 connections of two descriptors each, of one user no more than half of them
  await using agent = await startAgentProcess({ shell: 'ulimit -n 300' })
  await agent.register('/web')
  const all = []
  for (let i = 0; i < 100; i++) all.push(await connected(agent.socket))
  const refusals = all.flatMap(({ refusal }) => refusal ?? [])
  expect(refusals).toHaveLength(100 - 11)
  const reason = `user ${process.getuid?.()} has 11 connections already`
  expect(new Set(refusals)).toEqual(new Set([reason]))
  expect(agent.lines.filter((line) => line.includes('connections are refused'))).toEqual([
    expect.stringContaining(reason),
  ])
  // the socket of the administrator is another one
  expect(await agent.status()).toMatchObject({ connected: true, diskTrouble: '' })
  for (const { session } of all) session.destroy()
  await using source = startX509Source({ kind: 'unix', path: agent.socket })
  const { svids } = await source.ready(AbortSignal.timeout(60_000))
  expect(svids.map(({ id }) => id)).toEqual(['spiffe://example.org/web'])
}, 120_000)
