// Files that the agent writes for programs that cannot ask: a real authority, a real agent, a real nginx.
import { spawn, spawnSync } from 'node:child_process'
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { connect } from 'node:tls'
import { createClient } from '@connectrpc/connect'
import { createLocalJWKSet, decodeJwt, jwtVerify } from 'jose'
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest'
import { openTransport } from '../../../client/transport.ts'
import {
  AgentAdmin,
  type AgentStatus,
  type FileSet,
} from '../../../proto/gen/castellan/workload/v1/admin_pb.js'
import { Bundle } from '../../../proto/gen/spire/api/server/bundle/v1/bundle_pb.js'
import { Entry } from '../../../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import { bundleOfPem, bundleSourceOf } from '../../../spiffe/bundle.ts'
import { parseTrustDomain } from '../../../spiffe/id.ts'
import { parsePem } from '../../../spiffe/pem.ts'
import { verifySvid } from '../../../spiffe/svid.ts'
import { foreignDomain } from '../../support/bundle-endpoint.ts'
import { castellan } from '../../support/command.ts'
import { testFolder } from '../../support/folder.ts'
import { startNode, type TestNode, trustDomain } from '../../support/node.ts'
import { freePort } from '../../support/ports.ts'

const place = testFolder()
const at = (...names: string[]) => join(place.path, ...names)
const read = (...names: string[]) => readFileSync(at(...names), 'utf8')
const id = `spiffe://${trustDomain}/web`
const nginx = whyNoNginx()
const patience = { timeout: 60_000, interval: 50 }
let node: TestNode
let entryId = ''

function whyNoNginx(): string | undefined {
  if (spawnSync('nginx', ['-v']).status === 0) return undefined
  const reason = 'nginx is not installed'
  if (process.env.CI === 'true') throw new Error(reason)
  return reason
}

beforeAll(async () => {
  writeFileSync(at('password'), 'changeit', { mode: 0o600 })
  mkdirSync(at('nginx'))
  const files = [
    {
      id,
      folder: at('web'),
      mode: '0640',
      files: [
        { name: 'tls.crt', holds: 'chain' },
        { name: 'tls.key', holds: 'key', mode: '0600' },
        { name: 'ca.crt', holds: 'bundle' },
        { name: 'other.crt', holds: 'bundle', trustDomain: 'other.org' },
        { name: 'store.p12', holds: 'pkcs12', passwordFile: at('password') },
        { name: 'db.jwt', holds: 'jwt', audience: ['db'] },
        { name: 'jwks.json', holds: 'jwt-bundle' },
      ],
    },
    {
      id,
      folder: at('nginx/tls'),
      files: [
        { name: 'tls.crt', holds: 'chain' },
        { name: 'tls.key', holds: 'key' },
      ],
      notify: { pidFile: at('nginx/pid'), signal: 'HUP' },
    },
    {
      id: `spiffe://${trustDomain}/admin`,
      folder: at('admin'),
      files: [{ name: 'tls.key', holds: 'key' }],
    },
  ]
  node = await startNode({ agent: { files } })
}, 120_000)
afterAll(async () => {
  await node[Symbol.asyncDispose]()
  place[Symbol.dispose]()
})

/** Resolves once the agent says so of the set in `folder`. */
async function untilSet(folder: string, isIt: (set: FileSet) => boolean): Promise<FileSet> {
  using local = openTransport({ kind: 'unix', path: node.agent.adminSocket })
  const signal = AbortSignal.timeout(60_000)
  let last: AgentStatus | undefined
  try {
    for await (const status of createClient(AgentAdmin, local.transport).watchStatus(
      {},
      { signal },
    )) {
      last = status
      const set = status.files.find((it) => it.folder === at(folder))
      if (set !== undefined && isIt(set)) return set
    }
  } catch (cause) {
    throw new Error(`still ${JSON.stringify(last?.files, (_, it) => String(it))}`, { cause })
  }
  throw new Error('the agent ended')
}

const isWhole = ({ version, trouble }: FileSet) => version !== '' && trouble === ''

/** What is in the files belongs together, and is believed. */
function leafIn(folder: string): X509Certificate {
  const bundle = bundleOfPem(parseTrustDomain(trustDomain), read('web/current/ca.crt'), 'ca.crt')
  // the link is followed once: what is read then is of one version
  const set = realpathSync(at(folder, 'current'))
  const pem = readFileSync(join(set, 'tls.crt'), 'utf8')
  const chain = parsePem(pem, 'CERTIFICATE', 'tls.crt')
  expect(verifySvid(chain, bundleSourceOf(bundle), { now: Date.now() }).id).toBe(id)
  const leaf = new X509Certificate(pem)
  expect(leaf.checkPrivateKey(createPrivateKey(readFileSync(join(set, 'tls.key'))))).toBe(true)
  return leaf
}

/** Another certificate for the same identity: its entry names another DNS name. */
async function changeEntry(dnsNames: string[]): Promise<void> {
  const { results } = await createClient(Entry, node.local).batchUpdateEntry({
    entries: [{ id: entryId, dnsNames }],
    inputMask: { dnsNames: true },
  })
  expect(results[0]?.status?.code).toBe(0)
}

describe('files that the agent writes', () => {
  it('there are none before the identity is registered, and it says so', async () => {
    const { trouble, version } = await untilSet('web', (it) => it.trouble.includes('entry'))
    expect([trouble, version]).toEqual([`${id} is in no registration entry of this node`, ''])
  })

  it('are written for an identity that no process asks for', async () => {
    // of a user that nobody is: an attested process would get nothing
    entryId = await node.register('/web', ['unix:uid:4242424'])
    const { missing, spiffeId } = await untilSet('web', isWhole)
    expect([spiffeId, missing]).toEqual([id, ['other.crt']])
    leafIn('web')
    expect(readdirSync(at('web/current')).sort()).toEqual(
      ['ca.crt', 'db.jwt', 'jwks.json', 'store.p12', 'tls.crt', 'tls.key'].sort(),
    )
    const keys = createLocalJWKSet(JSON.parse(read('web/current/jwks.json')))
    const { payload } = await jwtVerify(read('web/current/db.jwt'), keys, { audience: 'db' })
    expect(payload.sub).toBe(id)
  })

  it('change together with their certificate', async () => {
    const before = leafIn('web').serialNumber
    await changeEntry(['web.test'])
    // the token of the changed entry may come first
    await untilSet('web', () => leafIn('web').serialNumber !== before)
    expect(leafIn('web').subjectAltName).toContain('DNS:web.test')
    expect(readdirSync(at('web'))).toHaveLength(3)
  })

  it('hold the bundle of another trust domain once it is federated', async () => {
    const { root } = foreignDomain('other.org')
    const before = leafIn('web').serialNumber
    const bundle = [{ trustDomain: 'other.org', x509Authorities: [{ asn1: root }] }]
    await createClient(Bundle, node.local).batchSetFederatedBundle({ bundle })
    await createClient(Entry, node.local).batchUpdateEntry({
      entries: [{ id: entryId, federatesWith: ['other.org'] }],
      inputMask: { federatesWith: true },
    })
    // the certificate of the changed entry comes by itself
    const isNew = () => leafIn('web').serialNumber !== before
    await untilSet('web', (it) => isWhole(it) && it.missing.length === 0 && isNew())
    expect(new X509Certificate(read('web/current/other.crt')).raw).toEqual(root)
  })

  it('are the same after a restart, and nothing is written for it', async () => {
    const before = readlinkSync(at('web/current'))
    await node.restartAgent()
    expect((await untilSet('web', isWhole)).version).toBe(before)
    await node.stopAuthority()
    await node.restartAgent()
    expect((await untilSet('web', isWhole)).version).toBe(before)
    await node.startAuthority()
  })

  it('have a new token again and again', async () => {
    await createClient(Entry, node.local).batchUpdateEntry({
      entries: [{ id: entryId, jwtSvidTtl: 8 }],
      inputMask: { jwtSvidTtl: true },
    })
    const seen = new Set<string>()
    const isShort = ({ iat = 0, exp = 0 }) => exp - iat <= 8
    await untilSet('web', () => {
      const token = read('web/current/db.jwt')
      if (isShort(decodeJwt(token))) seen.add(token)
      return seen.size === 3
    })
    await createClient(Entry, node.local).batchUpdateEntry({
      entries: [{ id: entryId, jwtSvidTtl: 3600 }],
      inputMask: { jwtSvidTtl: true },
    })
    await untilSet('web', () => !isShort(decodeJwt(read('web/current/db.jwt'))))
  }, 120_000)

  it('are never those of an administrator', async () => {
    const entry = {
      spiffeId: { trustDomain, path: '/admin' },
      parentId: { trustDomain, path: '/node' },
      selectors: [{ type: 'unix', value: 'uid:4242424' }],
      admin: true,
    }
    await createClient(Entry, node.local).batchCreateEntry({ entries: [entry] })
    const { trouble } = await untilSet('admin', (it) => it.trouble.includes('administrator'))
    expect(trouble).toContain('it is never written')
  })

  it('are shown by castellan agent status', async () => {
    const socket = ['--admin-socket', node.agent.adminSocket]
    const { stdout } = await castellan(['agent', 'status', ...socket])
    expect(stdout).toMatch(/FILES +ID +EXPIRES +STATE\n/)
    expect(stdout).toMatch(/\/web +spiffe:\/\/example\.org\/web +\d{4}-.*Z +as they should be\n/)
    expect(stdout).toMatch(/\/admin .*it is never written\n/)
    const json = await castellan(['agent', 'status', '-o', 'json', ...socket])
    expect(JSON.parse(json.stdout).files).toMatchObject([
      { folder: at('web'), spiffeId: id, trouble: '', missing: [], untold: '' },
      { folder: at('nginx/tls') },
      { folder: at('admin'), spiffeId: '' },
    ])
  })
})

/** The serial number that a server on this port shows. */
async function serialAt(port: number): Promise<string> {
  const socket = connect({
    ...{ port, host: '127.0.0.1', ca: read('web/current/ca.crt'), servername: 'web.test' },
    checkServerIdentity: () => undefined,
  })
  await once(socket, 'secureConnect')
  expect(socket.authorized).toBe(true)
  const serial = socket.getPeerX509Certificate()?.serialNumber ?? ''
  socket.destroy()
  return serial
}

it.skipIf(nginx)(
  `nginx serves the new certificate after its signal (${nginx ?? 'it is here'})`,
  async () => {
    const port = await freePort()
    writeFileSync(
      at('nginx/nginx.conf'),
      `daemon off; pid ${at('nginx/pid')}; error_log stderr warn; worker_processes 1; events {}
http {
  access_log off;
  client_body_temp_path ${at('nginx/body')}; proxy_temp_path ${at('nginx/proxy')};
  fastcgi_temp_path ${at('nginx/fastcgi')}; uwsgi_temp_path ${at('nginx/uwsgi')}; scgi_temp_path ${at('nginx/scgi')};
  server {
    listen 127.0.0.1:${port} ssl;
    ssl_certificate ${at('nginx/tls/current/tls.crt')};
    ssl_certificate_key ${at('nginx/tls/current/tls.key')};
  }
}
`,
    )
    const server = spawn(
      'nginx',
      ['-p', at('nginx'), '-e', 'stderr', '-c', at('nginx/nginx.conf')],
      {
        stdio: ['ignore', 'ignore', 'inherit'],
      },
    )
    onTestFinished(async () => {
      server.kill('SIGTERM')
      await once(server, 'exit')
    })
    // refused until it listens; its workers take the new certificate after they were told
    const shows = (serial: string) =>
      vi.waitFor(async () => expect(await serialAt(port)).toBe(serial), patience)
    await shows(leafIn('nginx/tls').serialNumber)
    const { version } = await untilSet('nginx/tls', isWhole)
    await changeEntry(['other.test'])
    const { untold } = await untilSet(
      'nginx/tls',
      (it) => it.version !== version && it.untold === '',
    )
    expect(untold).toBe('')
    await shows(leafIn('nginx/tls').serialNumber)
  },
  120_000,
)

it('the identity is gone: the files stay, and the agent says why', async () => {
  await createClient(Entry, node.local).batchDeleteEntry({ ids: [entryId] })
  await untilSet('web', (it) => it.trouble === `${id} is in no registration entry of this node`)
  leafIn('web')
})
