// The library on a real node: an authority, an agent, and this process as their workload.
import { createClient } from '@connectrpc/connect'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { startJwtSource } from '../../client/jwt-source.ts'
import { connectTls } from '../../client/tls-connect.ts'
import { startTlsServer } from '../../client/tls-server.ts'
import { startX509Source, type X509Source } from '../../client/x509-source.ts'
import { DenyRules } from '../../proto/gen/castellan/deny/v1/deny_rules_pb.js'
import { parseSpiffeId } from '../../spiffe/id.ts'
import { matchId } from '../../spiffe/match.ts'
import { startNode, type TestNode, trustDomain } from '../support/node.ts'
import { nextOf, textOf } from './tls-source.ts'

const here = parseSpiffeId(`spiffe://${trustDomain}/here`)
const accept = matchId(here)
const patience = () => AbortSignal.timeout(60_000)
const endpoint = () => ({ kind: 'unix', path: node.agent.socket }) as const

let node: TestNode
beforeAll(async () => {
  node = await startNode()
  await node.register('/here', [`unix:uid:${process.getuid?.()}`])
})
afterAll(() => node[Symbol.asyncDispose]())

/** Resolves once `is` holds. */
async function until(source: X509Source, is: () => boolean): Promise<void> {
  const reached = Promise.withResolvers<void>()
  using _ = source.subscribe(() => is() && reached.resolve())
  if (!is()) await reached.promise
}

describe('on a node', () => {
  it('a denied certificate ends its live connections; the next one is let in', async () => {
    await using source = startX509Source(endpoint())
    await source.ready(patience())
    const at = { host: '127.0.0.1', accept }
    await using server = await startTlsServer(source, { ...at, port: 0 }, (socket, peer) =>
      socket.write(`hello ${peer}`),
    )
    const { socket } = await connectTls(source, { ...at, port: server.port })
    expect(await nextOf(socket)).toBe(`hello ${here}`)
    const { serial } = source.svid() ?? { serial: '' }
    const target = { case: 'serial', value: serial } as const
    await createClient(DenyRules, node.local).addRule({ rule: { target } })
    expect(await textOf(socket)).toBe('')
    await until(source, () => source.svid()?.serial !== serial && source.crls().length > 0)
    const again = await connectTls(source, { ...at, port: server.port })
    expect(await nextOf(again.socket)).toBe(`hello ${here}`)
    again.socket.destroy()
  })

  it('goes on with what it has while the agent is away, and with its successor', async () => {
    await using x509 = startX509Source(endpoint())
    await using tokens = startJwtSource(endpoint())
    const before = await x509.ready(patience())
    const { token } = await tokens.fetch('a', { signal: patience() })
    await node.restartAgent()
    expect(x509.current()?.svids[0].id).toBe(before.svids[0].id)
    expect((await tokens.fetch('a')).token).toBe(token)
    const other = await vi.waitFor(() => tokens.fetch('b'), { timeout: 60_000, interval: 100 })
    expect(other.id).toBe(here)
    await until(x509, () => x509.trouble() === undefined && x509.current() !== before)
  })

  it('WA-18 WA-23 gives tokens, and says of others whether they are valid', async () => {
    await using source = startJwtSource(endpoint())
    await source.ready(patience())
    const svid = await source.fetch(['a', 'b'], { id: here, signal: patience() })
    expect(svid).toMatchObject({ id: here, audience: expect.arrayContaining(['a', 'b']) })
    expect(await source.fetch(['b', 'a'], { id: here })).toBe(svid)
    expect((await source.validate(svid.token, 'a')).claims).toMatchObject({ sub: here })
    expect((await source.verify(svid.token, 'b')).id).toBe(here)
    const broken = `${svid.token.slice(0, -8)}AAAAAAAA`
    for (const [token, audience] of [
      [svid.token, 'c'],
      [broken, 'a'],
    ] as const) {
      const refused = { code: 'ERR_UNTRUSTED' }
      await expect(source.validate(token, audience)).rejects.toMatchObject(refused)
      await expect(source.verify(token, audience)).rejects.toMatchObject(refused)
    }
    const other = parseSpiffeId(`spiffe://${trustDomain}/other`)
    await expect(source.fetch('a', { id: other })).rejects.toMatchObject({
      code: 'ERR_NO_IDENTITY',
    })
  })
})
