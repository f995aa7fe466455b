// Our agent below a stock spire-server: joins with a token and with a certificate, gets entries (more than one
// page of them), serves X.509- and JWT-SVIDs, and follows a rotation and a restart of the server.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createClient } from '@connectrpc/connect'
import { stringify } from 'yaml'
import { loadAgentConfig } from '../../agent/config.ts'
import { type RunningAgent, runAgent } from '../../agent/main.ts'
import { openTransport, securityHeader } from '../../client/transport.ts'
import { startX509Source, type X509Context, type X509Source } from '../../client/x509-source.ts'
import { SpiffeWorkloadAPI } from '../../proto/gen/spiffe/workload/workloadapi_pb.js'
import { Agent } from '../../proto/gen/spire/api/server/agent/v1/agent_pb.js'
import { Entry } from '../../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import { LocalAuthority } from '../../proto/gen/spire/api/server/localauthority/v1/localauthority_pb.js'
import { parseTrustDomain } from '../../spiffe/id.ts'
import { memoryLog } from '../support/ca.ts'
import { type Connection, connectLocally, rootsOf } from '../support/ca-client.ts'
import { freePort } from '../support/ports.ts'
import { eventually } from './eventually.ts'
import type { Interop, Outcome, Surroundings } from './interop.ts'
import { writeNodeCertificate } from './node-certificate.ts'
import { buildStock } from './stock.ts'

const trustDomain = 'example.org'
/** of one answer of SyncAuthorizedEntries */
const page = 500
const uid = { type: 'unix', value: `uid:${process.getuid?.()}` }

interface Server extends AsyncDisposable {
  readonly port: number
  readonly local: Connection
  restart(): Promise<void>
}

function serverConfig(folder: string, port: number): string {
  const file = join(folder, 'server.conf')
  const text = `server {
  bind_address = "127.0.0.1"
  bind_port = "${port}"
  socket_path = "${join(folder, 'api.sock')}"
  trust_domain = "${trustDomain}"
  data_dir = "${folder}"
  log_level = "ERROR"
  ratelimit { attestation = false }
}
plugins {
  DataStore "sql" {
    plugin_data {
      database_type = "sqlite3"
      connection_string = "${join(folder, 'datastore.sqlite3')}"
    }
  }
  NodeAttestor "join_token" { plugin_data {} }
  NodeAttestor "x509pop" { plugin_data { ca_bundle_path = "${join(folder, 'nodes.pem')}" } }
  KeyManager "disk" { plugin_data { keys_path = "${join(folder, 'keys.json')}" } }
}
`
  writeFileSync(file, text)
  return file
}

async function startServer(program: string, folder: string): Promise<Server> {
  const port = await freePort()
  const file = serverConfig(folder, port)
  const socket = join(folder, 'api.sock')
  const begin = () => spawn(program, ['run', '-config', file], { stdio: ['ignore', 'ignore', 2] })
  const listening = () => eventually('the server', () => rootsOf(socket))
  let child = begin()
  const end = async () => {
    const gone = once(child, 'exit')
    child.kill()
    await gone
  }
  await listening()
  const local = connectLocally(socket)
  return {
    ...{ port, local },
    async restart() {
      await end()
      child = begin()
      await listening()
    },
    async [Symbol.asyncDispose]() {
      local[Symbol.dispose]()
      await end()
    },
  }
}

interface AgentFiles {
  /** of its folders */
  readonly name: string
  readonly evidence: Readonly<Record<string, unknown>>
}

async function startAgent(folder: string, port: number, { name, evidence }: AgentFiles) {
  const file = join(folder, `${name}.yaml`)
  const content = {
    trustDomain,
    authority: { kind: 'spire', address: `127.0.0.1:${port}`, bundle: 'bundle.pem' },
    ...evidence,
    state: `${name}-state`,
    socket: `${name}-run/agent.sock`,
    adminSocket: `${name}-admin/admin.sock`,
  }
  writeFileSync(file, stringify(content))
  const signal = AbortSignal.timeout(120_000)
  const { log, lines } = memoryLog()
  try {
    return await runAgent(loadAgentConfig(file), { log, signal })
  } catch (cause) {
    throw new Error(`${name}: ${lines.at(-1)}`, { cause })
  }
}

async function register({ local }: Server, parent: string, paths: readonly string[]) {
  const entries = paths.map((path, i) => ({
    spiffeId: { trustDomain, path },
    parentId: { trustDomain, path: parent },
    // the first one is ours, the others are nobody's here
    selectors: [i === 0 ? uid : { type: 'unix', value: `uid:${4_000_000_000 + i}` }],
  }))
  const { results } = await local.client(Entry).batchCreateEntry({ entries })
  const refused = results.find(({ status }) => status?.code !== 0)
  if (refused !== undefined) throw new Error(`entry: ${refused.status?.message}`)
  return results.map(({ entry }) => entry?.id ?? '')
}

/** The first context for which `is` holds. */
async function context(
  source: X509Source,
  what: string,
  is: (context: X509Context | undefined) => boolean,
): Promise<void> {
  await eventually(what, async () => {
    if (!is(source.current())) throw new Error('not yet')
  })
}

const has = (path: string) => (it: X509Context | undefined) =>
  it?.svids.some(({ id }) => id === `spiffe://${trustDomain}${path}`) === true

async function tokens({ socket }: RunningAgent): Promise<void> {
  const options = { interceptors: [securityHeader] }
  using opened = openTransport({ kind: 'unix', path: socket }, options)
  const api = createClient(SpiffeWorkloadAPI, opened.transport)
  await eventually('JWT-SVID', async () => {
    const { svids } = await api.fetchJWTSVID({ audience: ['them'] })
    const svid = svids[0]?.svid ?? ''
    const { spiffeId } = await api.validateJWTSVID({ audience: 'them', svid })
    if (spiffeId !== `spiffe://${trustDomain}/web`) throw new Error(`of ${spiffeId}`)
  })
}

/** Prepared, activated and tainted, each once the agent has heard of what was before. */
async function rotate({ local }: Server, source: X509Source): Promise<void> {
  const operator = local.client(LocalAuthority)
  const old = (await operator.getX509AuthorityState({})).active?.authorityId ?? ''
  const before = source.current()?.svids[0].serial
  const next = (await operator.prepareX509Authority({})).preparedAuthority?.authorityId ?? ''
  const known = (it: X509Context | undefined) =>
    it?.bundles(parseTrustDomain(trustDomain))?.authorities.length === 2
  await context(source, 'the bundle with the prepared authority', known)
  await operator.activateX509Authority({ authorityId: next })
  await operator.taintX509Authority({ authorityId: old })
  const renewed = (it: X509Context | undefined) => it !== undefined && it.svids[0].serial !== before
  await context(source, 'an SVID of the new authority', renewed)
}

async function tour(server: Server, agent: RunningAgent, log: Surroundings['log']): Promise<void> {
  const many = Array.from({ length: page + 50 }, (_, i) => `/other-${i}`)
  const [id = ''] = await register(server, '/node', ['/web'])
  await using source = startX509Source({ kind: 'unix', path: agent.socket })
  await context(source, 'X.509-SVID', has('/web'))
  log('ok: X.509-SVID')
  await tokens(agent)
  log('ok: JWT-SVID, validated')
  await register(server, '/node', ['/more', ...many])
  await context(source, 'an entry beyond the first page', has('/more'))
  log(`ok: ${page + 52} entries`)
  await rotate(server, source)
  log('ok: the authority was prepared, activated and tainted')
  await server.restart()
  await register(server, '/node', ['/after'])
  await context(source, 'an entry after the restart', has('/after'))
  log('ok: the server was restarted')
  await server.local.client(Entry).batchDeleteEntry({ ids: [id] })
  await context(source, 'a deleted entry', (it) => it !== undefined && !has('/web')(it))
  log('ok: an entry was deleted')
}

async function byCertificate(folder: string, server: Server, log: Surroundings['log']) {
  const evidence = { x509pop: { certificate: 'node.pem', key: 'node.key' } }
  await using agent = await startAgent(folder, server.port, { name: 'certificate', evidence })
  const filter = { byAttestationType: 'x509pop' }
  const { agents } = await server.local.client(Agent).listAgents({ filter })
  await register(server, agents[0]?.id?.path ?? '', ['/by-certificate'])
  await using source = startX509Source({ kind: 'unix', path: agent.socket })
  await context(source, 'X.509-SVID', has('/by-certificate'))
  log('ok: x509pop')
}

async function run(surroundings: Surroundings): Promise<Outcome> {
  const { log } = surroundings
  const stock = await buildStock(surroundings)
  if (stock.kind === 'skipped') return stock
  await using undo = new AsyncDisposableStack()
  const folder = mkdtempSync(join(tmpdir(), 'castellan-spire-server-'))
  undo.defer(() => rmSync(folder, { recursive: true, force: true }))
  writeNodeCertificate(folder)
  const server = undo.use(await startServer(stock.server, folder))
  writeFileSync(join(folder, 'bundle.pem'), await rootsOf(join(folder, 'api.sock')))
  const agentId = { trustDomain, path: '/node' }
  const { value } = await server.local.client(Agent).createJoinToken({ ttl: 600, agentId })
  writeFileSync(join(folder, 'token'), value)
  const evidence = { joinTokenFile: 'token' }
  const agent = undo.use(await startAgent(folder, server.port, { name: 'token', evidence }))
  await tour(server, agent, log)
  // the authority of the first one is tainted by now
  writeFileSync(join(folder, 'bundle.pem'), await rootsOf(join(folder, 'api.sock')))
  await byCertificate(folder, server, log)
  return { kind: 'ok' }
}

export const spireServer: Interop = { name: 'spire-server', run }
