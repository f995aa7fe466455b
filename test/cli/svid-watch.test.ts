// `castellan svid watch`: each change, and the loss of the identity, as lines for programs and for people.
import { join } from 'node:path'
import { createClient } from '@connectrpc/connect'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { Entry } from '../../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import { castellan } from '../support/command.ts'
import { startNode, type TestNode, trustDomain } from '../support/node.ts'
import { type RunningCommand, runCastellan } from '../support/running-command.ts'

const uid = process.getuid?.()
const id = `spiffe://${trustDomain}/web`
let node: TestNode
let json: RunningCommand
let text: RunningCommand
let entryId = ''

beforeAll(async () => {
  node = await startNode()
  const env = { SPIFFE_ENDPOINT_SOCKET: `unix://${node.agent.socket}` }
  json = runCastellan(['svid', 'watch', '-o', 'json'], env)
  text = runCastellan(['svid', 'watch', '--socket', node.agent.socket])
}, 120_000)
afterAll(async () => {
  await json[Symbol.asyncDispose]()
  await text[Symbol.asyncDispose]()
  await node[Symbol.asyncDispose]()
})

it('waits for an identity, and says on standard error what to register', async () => {
  await json.line((line) => line.includes('castellan entry create'))
  expect(json.stderr[0]).toBe(
    'castellan: no identity issued: no registration entry fits this process',
  )
  expect(json.stderr[1]).toMatch(new RegExp(`^ {2}this process has unix:uid:${uid} `))
  expect(json.stdout).toEqual([])
})

it('prints one line of JSON, or a table, for each update', async () => {
  entryId = await node.register('/web', [`unix:uid:${uid}`])
  const first = JSON.parse(await json.line((line) => line.startsWith('{')))
  expect(first).toMatchObject({
    event: 'update',
    at: expect.stringMatching(/Z$/),
    svids: [{ spiffeId: id, serial: expect.any(String) }],
    bundles: [{ trustDomain }],
  })
  await text.line((line) => line.startsWith(id))
  await createClient(Entry, node.local).batchUpdateEntry({
    entries: [{ id: entryId, dnsNames: ['web.test'] }],
    inputMask: { dnsNames: true },
  })
  const { serial } = first.svids[0]
  const next = await json.line((line) => line.startsWith('{') && !line.includes(serial))
  expect(JSON.parse(next)).toMatchObject({ event: 'update', svids: [{ spiffeId: id }] })
  expect([...json.stdout, ...text.stdout].join()).not.toMatch(/PRIVATE KEY/)
})

it('tells of the loss of the identity, and ends well when it is stopped', async () => {
  await createClient(Entry, node.local).batchDeleteEntry({ ids: [entryId] })
  const reason = 'the agent gives no identity to this process any more'
  const lost = await json.line((line) => line.includes('"lost"'))
  expect(JSON.parse(lost)).toEqual({ event: 'lost', at: expect.stringMatching(/Z$/), reason })
  await text.line((line) => line.endsWith(`Z lost: ${reason}`))
  expect([await json.stop(), await text.stop()]).toEqual([0, 0])
  expect(json.stdout.every((line) => 'event' in JSON.parse(line))).toBe(true)
})

it('a socket where nobody listens ends it at once', async () => {
  const path = join(node.folder, 'none.sock')
  const { code, stdout, stderr } = await castellan(['svid', 'watch', '--socket', path])
  expect([code, stdout]).toEqual([3, ''])
  expect(stderr).toContain(`nothing answers at ${path} (ENOENT)`)
  expect(stderr.trim().split('\n')).toHaveLength(1)
})
