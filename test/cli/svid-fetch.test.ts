// `castellan svid fetch` as people and scripts call it: real programs, an authority and an agent.
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { createClient } from '@connectrpc/connect'
import { decodeJwt } from 'jose'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { inWords } from '../../cli/x509-view.ts'
import { openTransport, securityHeader } from '../../client/transport.ts'
import { SpiffeWorkloadAPI } from '../../proto/gen/spiffe/workload/workloadapi_pb.js'
import { Bundle } from '../../proto/gen/spire/api/server/bundle/v1/bundle_pb.js'
import { Entry } from '../../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import { foreignDomain } from '../support/bundle-endpoint.ts'
import { castellan, startCastellan } from '../support/command.ts'
import { startNode, type TestNode, trustDomain } from '../support/node.ts'
import { runCastellan } from '../support/running-command.ts'

const uid = process.getuid?.()
const idOf = (path: string) => `spiffe://${trustDomain}${path}`
const at = () => ['--socket', `unix://${node.agent.socket}`, '--timeout', '60s']

let node: TestNode
beforeAll(async () => {
  node = await startNode({ agent: { incubating: true } })
}, 120_000)
afterAll(() => node[Symbol.asyncDispose]())

/** Until the agent gives so many SVIDs to this user's processes. */
async function untilGiven(count: number): Promise<void> {
  using local = openTransport(
    { kind: 'unix', path: node.agent.socket },
    { interceptors: [securityHeader] },
  )
  const client = createClient(SpiffeWorkloadAPI, local.transport)
  const signal = AbortSignal.timeout(60_000)
  for await (const { svids } of client.fetchX509SVID({}, { signal }))
    if (svids.length === count) return
}

const isPrivate = (text: string) => /PRIVATE KEY|"d":/.test(text)

describe('before anything is registered', () => {
  it('the answer is no, with what to register', async () => {
    for (const args of [['x509'], ['jwt', '--audience', 'db'], ['wit']]) {
      const { code, stdout, stderr } = await castellan(['svid', 'fetch', ...args, ...at()])
      expect([code, stdout]).toEqual([1, ''])
      expect(stderr).toContain('no identity issued: no registration entry fits this process')
      expect(stderr).toContain(`this process has unix:uid:${uid} unix:gid:`)
      expect(stderr).toContain('castellan entry create --spiffe-id')
      expect(stderr).toContain(`--selector unix:uid:${uid}\n`)
    }
  })

  it('the agent tells what it sees, to who may ask its administration socket', async () => {
    await using asked = runCastellan(['svid', 'fetch', 'x509', ...at()], {
      CASTELLAN_AGENT_SOCKET: node.agent.adminSocket,
    })
    expect(await asked.ended).toBe(1)
    expect(asked.stderr.join()).toMatch(/this process has .*unix:path:\/.*unix:uid:/)
  })

  it('a socket where nobody listens is named', async () => {
    const path = join(node.folder, 'none.sock')
    const { code, stderr } = await castellan(['svid', 'fetch', 'x509', '--socket', path])
    expect(code).toBe(3)
    expect(stderr).toBe(
      `castellan: nothing answers at ${path} (ENOENT); is it running? Name another socket with --socket\n`,
    )
  })

  it('an agent that stands still is waited for, and not longer', async () => {
    const path = join(node.folder, 'still.sock')
    const server = createServer(() => {}).listen(path)
    onTestFinished(() => void server.close())
    const args = ['svid', 'fetch', 'x509', '--socket', path, '--timeout', '200ms']
    const { code, stderr } = await castellan(args)
    expect([code, stderr]).toEqual([
      3,
      'castellan: no answer within 0.2 s; --timeout is how long to wait\n',
    ])
  })

  it('wrong usage is 2', async () => {
    const cases: [string[], string][] = [
      [['x590'], '"x590": x509, jwt or wit'],
      [['jwt', ...at()], '--audience is missing: who is the token for?'],
      [['x509'], 'no Workload API endpoint: configure one, or set SPIFFE_ENDPOINT_SOCKET'],
      [['x509', '--socket', 'http://x'], 'is no Workload API endpoint'],
      [['x509', '--timeout', 'soon'], '--timeout: a duration is a number and one of ms'],
    ]
    for (const [args, message] of cases) {
      const { code, stderr } = await castellan(['svid', 'fetch', ...args])
      expect([code, stderr]).toEqual([2, expect.stringContaining(message)])
    }
  })
})

describe('of a process with two identities', () => {
  const { root } = foreignDomain('other.org')

  beforeAll(async () => {
    const entry = {
      spiffeId: { trustDomain, path: '/web' },
      parentId: { trustDomain, path: '/node' },
      selectors: [{ type: 'unix', value: `uid:${uid}` }],
      federatesWith: ['other.org'],
      hint: 'internal',
    }
    const bundle = [{ trustDomain: 'other.org', x509Authorities: [{ asn1: root }] }]
    await createClient(Bundle, node.local).batchSetFederatedBundle({ bundle })
    await createClient(Entry, node.local).batchCreateEntry({ entries: [entry] })
    await node.register('/batch', [`unix:uid:${uid}`])
    await untilGiven(2)
  }, 120_000)

  it('x509 shows a table to people, without keys', async () => {
    const { code, stdout, stderr } = await castellan(['svid', 'fetch', 'x509', ...at()])
    expect([code, stderr]).toEqual([0, ''])
    expect(stdout).toMatch(/^SPIFFE ID +HINT +SERIAL +EXPIRES\n/)
    expect(stdout).toMatch(/\/web +internal +[0-9a-f]{20,} +in (59|60) minutes\n/)
    expect(stdout).toMatch(/\nexample\.org +sha256:[0-9a-f]{64} +in \d+ (days|hours)\n/)
    expect(stdout).toMatch(/\nother\.org +sha256:[0-9a-f]{64} +/)
    expect(isPrivate(stdout)).toBe(false)
  })

  it('x509 -o json is one value, by the real program and the environment', async () => {
    const { code, stdout, stderr } = await startCastellan(
      ['svid', 'fetch', 'x509', '-o', 'json', ...at(), '--id', idOf('/web')],
      { cwd: node.folder },
    )
    expect([code, stderr]).toEqual([0, ''])
    expect(isPrivate(stdout)).toBe(false)
    const { svids, bundles, crls, written } = JSON.parse(stdout)
    expect(svids).toEqual([
      {
        spiffeId: idOf('/web'),
        hint: 'internal',
        serial: expect.stringMatching(/^[0-9a-f]+$/),
        expiresAt: expect.stringMatching(/Z$/),
        chain: expect.arrayContaining([expect.stringContaining('BEGIN CERTIFICATE')]),
      },
    ])
    expect(bundles.map((it: { trustDomain: string }) => it.trustDomain)).toEqual([
      'example.org',
      'other.org',
    ])
    expect([crls, written]).toEqual([expect.any(Number), []])
  })

  it('x509 --write makes the files of spire-agent api fetch, keys for the owner only', async () => {
    const folder = join(node.folder, 'written')
    const args = ['svid', 'fetch', 'x509', ...at(), '--write', folder]
    const { code, stdout } = await castellan(args)
    expect(code).toBe(0)
    expect(stdout).toContain(`wrote ${join(folder, 'svid.0.key')}\n`)
    const names = ['bundle', 'svid'].flatMap((it) => [`${it}.0.pem`, `${it}.1.pem`])
    const federated = ['federated_bundle.0.0.pem', 'federated_bundle.1.0.pem']
    const keys = ['svid.0.key', 'svid.1.key']
    expect(readdirSync(folder).sort()).toEqual([...names, ...federated, ...keys].sort())
    for (const i of [0, 1]) {
      const read = (name: string) => readFileSync(join(folder, name), 'utf8')
      const leaf = new X509Certificate(read(`svid.${i}.pem`))
      expect(leaf.checkPrivateKey(createPrivateKey(read(`svid.${i}.key`)))).toBe(true)
      expect(statSync(join(folder, `svid.${i}.key`)).mode & 0o777).toBe(0o600)
      expect(new X509Certificate(read(`bundle.${i}.pem`)).ca).toBe(true)
      expect(new X509Certificate(read(`federated_bundle.${i}.0.pem`)).raw).toEqual(root)
    }
    // once more, over what is there
    expect((await castellan([...args, '-o', 'json'])).code).toBe(0)
  })

  it('an identity that is not that of this process is none', async () => {
    const other = ['--id', idOf('/other')]
    const x509 = await castellan(['svid', 'fetch', 'x509', ...at(), ...other])
    expect(x509).toMatchObject({ code: 1, stdout: '' })
    expect(x509.stderr).toMatch(/\/other is not this process; it is spiffe:.*\/web/)
    const jwt = await castellan(['svid', 'fetch', 'jwt', ...at(), '--audience', 'db', ...other])
    expect(jwt).toMatchObject({ code: 1, stdout: '' })
  })

  it('jwt prints the token for scripts, and whose they are when there are several', async () => {
    const audience = ['--audience', 'db', '--audience', 'cache']
    const args = ['svid', 'fetch', 'jwt', ...at(), ...audience]
    const one = await castellan([...args, '--id', idOf('/web')])
    expect([one.code, one.stderr]).toEqual([0, ''])
    expect(decodeJwt(one.stdout.trim())).toMatchObject({ sub: idOf('/web'), aud: ['db', 'cache'] })
    const all = await castellan(args)
    expect(all.stdout.trim().split('\n')).toHaveLength(2)
    expect(all.stderr).toMatch(/^castellan: of spiffe:.*, spiffe:.*, in this order; --id/)
    const folder = join(node.folder, 'tokens')
    const json = await castellan([...args, '-o', 'json', '--write', folder])
    expect(JSON.parse(json.stdout).svids).toMatchObject(
      all.stdout
        .trim()
        .split('\n')
        .map((token) => ({ token, audience: ['db', 'cache'] })),
    )
    expect(readdirSync(folder).sort()).toEqual(['jwt.0.token', 'jwt.1.token'])
    expect(statSync(join(folder, 'jwt.0.token')).mode & 0o777).toBe(0o600)
  })

  it('wit prints the token; its key goes into a file or nowhere', async () => {
    const args = ['svid', 'fetch', 'wit', ...at(), '--id', idOf('/web')]
    const { stdout } = await castellan(args)
    expect(decodeJwt(stdout.trim()).sub).toBe(idOf('/web'))
    const folder = join(node.folder, 'wit')
    const json = await castellan([...args, '-o', 'json', '--write', folder])
    expect(isPrivate(json.stdout)).toBe(false)
    expect(JSON.parse(readFileSync(join(folder, 'wit.0.key'), 'utf8'))).toHaveProperty('d')
    expect(statSync(join(folder, 'wit.0.key')).mode & 0o777).toBe(0o600)
  })
})

it('expiry in words', () => {
  const minute = 60_000
  expect(
    [59 * minute, 90 * minute, 120 * minute, 47 * 60 * minute, -2 * minute, 1500, 0].map((ms) =>
      inWords(ms, 0),
    ),
  ).toEqual([
    'in 59 minutes',
    'in 90 minutes',
    'in 2 hours',
    'in 47 hours',
    '2 minutes ago',
    'in 1 second',
    'in 0 seconds',
  ])
})
