// An agent that is told to stop: what is under way is finished with the authority's help, streams are told to go.
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { Code, ConnectError, createClient } from '@connectrpc/connect'
import { expect, it } from 'vitest'
import { openTransport, securityHeader } from '../../client/transport.ts'
import { SpiffeWorkloadAPI } from '../../proto/gen/spiffe/workload/workloadapi_pb.js'
import { startAgentProcess } from '../support/agent-process.ts'

/** Passes bytes on to `port`; what comes while it is held waits. */
async function startRelay(port: number) {
  const waiting: (() => void)[] = []
  let isHeld = false
  const sockets = new Set<Socket>()
  const server = createServer((near) => {
    const far = connect({ host: '127.0.0.1', port })
    for (const socket of [near, far]) sockets.add(socket.on('error', () => {}))
    near.on('data', (bytes: Buffer) => {
      if (isHeld) waiting.push(() => far.write(bytes))
      else far.write(bytes)
    })
    far.pipe(near)
    near.on('close', () => far.destroy())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  return {
    port: typeof address === 'object' && address !== null ? address.port : 0,
    hold() {
      isHeld = true
    },
    release() {
      isHeld = false
      for (const send of waiting.splice(0)) send()
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}

it('SIGTERM: streams end with Unavailable, nobody else is let in, a token that is asked for still comes', async () => {
  await using relays = new AsyncDisposableStack()
  const relayed = Promise.withResolvers<Awaited<ReturnType<typeof startRelay>>>()
  await using agent = await startAgentProcess({
    async via(port) {
      const relay = relays.use(await startRelay(port))
      relayed.resolve(relay)
      return relay.port
    },
  })
  const relay = await relayed.promise
  await agent.register('/web')
  using local = openTransport(
    { kind: 'unix', path: agent.socket },
    { interceptors: [securityHeader] },
  )
  const client = createClient(SpiffeWorkloadAPI, local.transport)
  const signal = AbortSignal.timeout(120_000)
  // until the entry has arrived there is no identity
  for (;;) {
    const code = await client.fetchJWTSVID({ audience: ['first'] }, { signal }).then(
      () => undefined,
      (error: unknown) => ConnectError.from(error).code,
    )
    if (code === undefined) break
    expect(Code[code]).toBe(Code[Code.PermissionDenied])
  }
  relay.hold()
  const token = client.fetchJWTSVID({ audience: ['last'] }, { signal })
  const stream = client.fetchJWTBundles({}, { signal })[Symbol.asyncIterator]()
  // over the same connection: what was asked before it has arrived
  expect((await stream.next()).done).toBe(false)
  process.kill(agent.pid, 'SIGTERM')
  const ended = ConnectError.from(await stream.next().catch((error: unknown) => error))
  expect([ended.code, ended.rawMessage]).toEqual([Code.Unavailable, 'the server is closing'])
  const late = connect(agent.socket)
  const [refusal] = await once(late, 'error')
  expect(refusal).toMatchObject({ code: expect.stringMatching(/^(?:ECONNREFUSED|ENOENT)$/) })
  relay.release()
  expect((await token).svids).toHaveLength(1)
  expect(await agent.ended).toBe(0)
  expect(agent.lines.at(-1)).toContain('stopped')
}, 240_000)
