// SPIRE's Delegated Identity API on the admin socket, and the explanation of a process beside it.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { Code, ConnectError, createClient } from '@connectrpc/connect'
import { decodeJwt } from 'jose'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { openTransport } from '../../client/transport.ts'
import { AgentAdmin } from '../../proto/gen/castellan/workload/v1/admin_pb.js'
import { DelegatedIdentity } from '../../proto/gen/spire/api/agent/delegatedidentity/v1/delegatedidentity_pb.js'
import { Entry } from '../../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import { parseCertificate } from '../../spiffe/certificate.ts'
import { leafIdOf } from '../../spiffe/svid.ts'
import { startNode, type TestNode, trustDomain } from '../support/node.ts'

const patience = { timeout: 60_000, interval: 100 }
const uid = process.getuid?.() ?? 0
const idOf = (path: string) => `spiffe://${trustDomain}${path}`
const theirs = [{ type: 'custom', value: 'somebody-else' }]

let node: TestNode
let admin: ReturnType<typeof openTransport>
const api = () => createClient(DelegatedIdentity, admin.transport)

beforeAll(async () => {
  node = await startNode({ agent: { delegates: [idOf('/delegate')] } })
  admin = openTransport({ kind: 'unix', path: node.agent.adminSocket })
}, 120_000)
afterAll(async () => {
  admin[Symbol.dispose]()
  await node[Symbol.asyncDispose]()
})

async function first<T>(stream: AsyncIterable<T>): Promise<T> {
  for await (const message of stream) return message
  throw new Error('the stream ended')
}

const codeOf = (promise: Promise<unknown>) =>
  promise.then(
    () => 'it succeeded',
    (error: unknown) => ConnectError.from(error).code,
  )

const signal = () => AbortSignal.timeout(60_000)
const selected = () =>
  first(api().subscribeToX509SVIDs({ selectors: theirs }, { signal: signal() }))

describe('Delegated identity', () => {
  it('is for those that the configuration names, by their own identity', async () => {
    await node.register('/workload', ['custom:somebody-else'])
    expect(await codeOf(selected())).toBe(Code.PermissionDenied)
    await node.register('/delegate', [`unix:uid:${uid}`])
    const { x509Svids } = await vi.waitFor(selected, patience)
    const [svid] = x509Svids
    expect(svid?.x509Svid?.id).toMatchObject({ trustDomain, path: '/workload' })
    const [leaf = new Uint8Array()] = svid?.x509Svid?.certChain ?? []
    expect(leafIdOf(parseCertificate(leaf))).toBe(idOf('/workload'))
    expect(svid?.x509SvidKey.length).toBeGreaterThan(0)
  })

  it('follows what becomes of the workload: another entry, and none', async () => {
    const stop = new AbortController()
    const stream = api().subscribeToX509SVIDs({ selectors: theirs }, { signal: stop.signal })
    const messages = stream[Symbol.asyncIterator]()
    expect((await messages.next()).value?.x509Svids).toHaveLength(1)
    const id = await node.register('/second', ['custom:somebody-else'])
    expect((await messages.next()).value?.x509Svids).toHaveLength(2)
    await createClient(Entry, node.local).batchDeleteEntry({ ids: [id] })
    expect((await messages.next()).value?.x509Svids).toHaveLength(1)
    stop.abort()
  })

  it('gives tokens by selectors and by pid, and all bundles', async () => {
    const { svids } = await api().fetchJWTSVIDs({ audience: ['db'], selectors: theirs })
    expect(svids.map(({ token }) => decodeJwt(token).sub)).toEqual([idOf('/workload')])
    const own = await api().fetchJWTSVIDsByPID({ audience: ['db'], pid: process.pid })
    expect(own.svids.map(({ id }) => id?.path)).toEqual(['/delegate'])
    const x509 = await first(api().subscribeToX509Bundles({}, { signal: signal() }))
    const jwt = await first(api().subscribeToJWTBundles({}, { signal: signal() }))
    expect(Object.keys(x509.caCertificates)).toEqual([`spiffe://${trustDomain}`])
    expect(Object.keys(jwt.bundles)).toEqual([`spiffe://${trustDomain}`])
  })

  it('R9 gives nothing of administrators and downstream authorities', async () => {
    const entry = (path: string, more: object) => ({
      spiffeId: { trustDomain, path },
      parentId: { trustDomain, path: '/node' },
      selectors: [{ type: 'custom', value: 'powerful' }],
      ...more,
    })
    await createClient(Entry, node.local).batchCreateEntry({
      entries: [
        entry('/admin', { admin: true }),
        entry('/downstream', { downstream: true }),
        entry('/plain', {}),
        // is there already unless this test runs alone
        entry('/delegate', { selectors: [{ type: 'unix', value: `uid:${uid}` }] }),
      ],
    })
    const selectors = [{ type: 'custom', value: 'powerful' }]
    const paths = async () => {
      const { svids } = await api().fetchJWTSVIDs({ audience: ['db'], selectors })
      return svids.map(({ id }) => id?.path)
    }
    await vi.waitFor(async () => expect(await paths()).toEqual(['/plain']), patience)
    await vi.waitFor(async () => {
      const answer = await first(api().subscribeToX509SVIDs({ selectors }, { signal: signal() }))
      expect(answer.x509Svids.map(({ x509Svid }) => x509Svid?.id?.path)).toEqual(['/plain'])
    }, patience)
  })

  it('refuses what refers to nobody', async () => {
    const at = { signal: signal() }
    expect(await codeOf(first(api().subscribeToX509SVIDs({}, at)))).toBe(Code.InvalidArgument)
    expect(await codeOf(first(api().subscribeToX509SVIDsByPID({ pid: -1 }, at)))).toBe(
      Code.InvalidArgument,
    )
    const child = spawn('true')
    const gone = once(child, 'exit')
    await gone
    const pid = child.pid ?? 0
    expect(await codeOf(first(api().subscribeToX509SVIDsByPID({ pid }, at)))).toBe(Code.NotFound)
  })

  it('ends with the process that it was asked for', async () => {
    const child = spawn('sleep', ['600'])
    await once(child, 'spawn')
    const stream = api().subscribeToX509SVIDsByPID({ pid: child.pid ?? 0 }, { signal: signal() })
    const messages = stream[Symbol.asyncIterator]()
    const { value } = await messages.next()
    expect(value?.x509Svids).toMatchObject([{ x509Svid: { id: { path: '/delegate' } } }])
    child.kill('SIGKILL')
    expect(await codeOf(messages.next())).toBe(Code.NotFound)
  })
})

describe('the explanation of a process', () => {
  it('says what it is, what applies to it, and what nearly does', async () => {
    await node.register('/near', [`unix:uid:${uid}`, 'unix:path:/usr/bin/other'])
    const explain = () =>
      createClient(AgentAdmin, admin.transport).explainProcess({ pid: process.pid })
    await vi.waitFor(async () => {
      const { near } = await explain()
      expect(near[0]).toMatchObject({
        spiffeId: idOf('/near'),
        missing: ['unix:path:/usr/bin/other'],
      })
    }, patience)
    const { uid: told, selectors, matched } = await explain()
    expect(told).toBe(uid)
    expect(selectors).toContain(`unix:uid:${uid}`)
    expect(matched.map(({ spiffeId }) => spiffeId)).toEqual([idOf('/delegate')])
  })

  it('of nobody is refused', async () => {
    const nobody = createClient(AgentAdmin, admin.transport).explainProcess({ pid: 4_194_304 })
    expect(await codeOf(nobody)).toBe(Code.NotFound)
  })
})
