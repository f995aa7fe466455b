// A stock spire-agent below our authority: joins, gets entries, serves X.509- and JWT-SVIDs, and follows
// the rotation of our keys and a restart of the authority.
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ConnectError } from '@connectrpc/connect'
import { loadCaConfig } from '../../ca/config.ts'
import { type RunningAuthority, runAuthority } from '../../ca/main.ts'
import { prepareState } from '../../ca/state-folder.ts'
import { Agent } from '../../proto/gen/spire/api/server/agent/v1/agent_pb.js'
import { Entry } from '../../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import { LocalAuthority } from '../../proto/gen/spire/api/server/localauthority/v1/localauthority_pb.js'
import { memoryLog } from '../support/ca.ts'
import { connectLocally, rootsOf } from '../support/ca-client.ts'
import { eventually } from './eventually.ts'
import type { Interop, Outcome, Surroundings } from './interop.ts'
import { writeNodeCertificate } from './node-certificate.ts'
import { buildStock } from './stock.ts'

function call(program: string, ...args: string[]): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  execFile(program, args, { timeout: 30_000 }, (error, stdout, stderr) => {
    if (error === null) resolve(stdout)
    else reject(new Error(`${args.join(' ')}: ${(stderr || stdout).trim().slice(0, 400)}`))
  })
  return promise
}

/** An authority that can be stopped and started again on its port. */
async function restartable(folder: string) {
  const write = (port: number) => {
    const file = join(folder, 'ca.yaml')
    writeFileSync(
      file,
      `trustDomain: example.org
state: state
unlock: { keyFile: ca.key }
listen: 127.0.0.1:${port}
operations: 127.0.0.1:0
attestors: { x509pop: { bundle: nodes.pem } }
`,
    )
    return loadCaConfig(file)
  }
  const { log } = memoryLog()
  const config = write(0)
  prepareState(config)
  let running: RunningAuthority = await runAuthority(config, { log })
  const { port, socket } = running
  return {
    port,
    socket,
    async restart() {
      await running[Symbol.asyncDispose]()
      running = await runAuthority(write(port), { log })
    },
    [Symbol.asyncDispose]: () => running[Symbol.asyncDispose](),
  }
}

interface StockConfig {
  readonly port: number
  /** of its folders and its file */
  readonly name: string
  readonly attestor: string
}

function configFor(folder: string, { port, name, attestor }: StockConfig): string {
  const file = join(folder, `${name}.conf`)
  writeFileSync(
    file,
    `agent {
  data_dir = "${join(folder, name, 'data')}"
  log_level = "WARN"
  server_address = "127.0.0.1"
  server_port = "${port}"
  socket_path = "${join(folder, name, 'run', 'api.sock')}"
  trust_bundle_path = "${join(folder, 'bundle.pem')}"
  trust_domain = "example.org"
  experimental { sync_interval = "1s" }
}
plugins {
  NodeAttestor ${attestor}
  KeyManager "memory" { plugin_data {} }
  WorkloadAttestor "unix" { plugin_data {} }
}
`,
  )
  for (const part of ['data', 'run']) mkdirSync(join(folder, name, part), { recursive: true })
  return file
}

interface Scene {
  readonly program: string
  readonly socket: string
  readonly local: ReturnType<typeof connectLocally>
  readonly log: (line: string) => void
}

const fetchX509 = async ({ program, socket }: Scene, folder: string) => {
  const text = await call(program, 'api', 'fetch', 'x509', '-socketPath', socket, '-write', folder)
  if (!text.includes('spiffe://example.org/web')) throw new Error(`no SVID in: ${text}`)
  return call('openssl', 'x509', '-in', join(folder, 'svid.0.pem'), '-noout', '-serial')
}

async function register({ local }: Scene, byAttestationType: string): Promise<void> {
  const [agent] = await eventually('attestation', async () => {
    const { agents } = await local.client(Agent).listAgents({ filter: { byAttestationType } })
    return agents.length === 1 ? agents : Promise.reject(new Error(`${agents.length} agents`))
  })
  if (agent?.id === undefined) throw new Error('an agent without ID')
  const { results } = await local.client(Entry).batchCreateEntry({
    entries: [
      {
        spiffeId: { trustDomain: 'example.org', path: '/web' },
        parentId: agent.id,
        selectors: [{ type: 'unix', value: `uid:${process.getuid?.()}` }],
      },
    ],
  })
  if (results[0]?.status?.code !== 0) throw new Error(`entry: ${results[0]?.status?.message}`)
}

async function fetchJwt({ program, socket }: Scene): Promise<void> {
  const at = ['-socketPath', socket, '-audience', 'them']
  const text = await call(program, 'api', 'fetch', 'jwt', ...at)
  const token = /(eyJ[\w-]+\.[\w-]+\.[\w-]+)/.exec(text)?.[1] ?? ''
  const said = await call(program, 'api', 'validate', 'jwt', ...at, '-svid', token)
  if (!said.includes('spiffe://example.org/web')) throw new Error(`not valid: ${said}`)
}

/** Prepared to revoked; what has to wait for the agent is tried until it has followed. */
async function rotate({ local }: Scene): Promise<void> {
  const operator = local.client(LocalAuthority)
  const waiting = <T>(what: string, step: () => Promise<T>) =>
    eventually(what, async () => {
      try {
        return await step()
      } catch (error) {
        if (/yet: /.test(ConnectError.from(error).message)) throw error
        throw new Error(`refused for good: ${String(error)}`)
      }
    })
  const old = (await operator.getX509AuthorityState({})).active?.authorityId ?? ''
  const next = (await operator.prepareX509Authority({})).preparedAuthority?.authorityId ?? ''
  await waiting('activate', () => operator.activateX509Authority({ authorityId: next }))
  await operator.taintX509Authority({ authorityId: old })
  await waiting('revoke', () => operator.revokeX509Authority({ authorityId: old }))
}

async function tour(scene: Scene, folder: string, restart: () => Promise<void>): Promise<void> {
  const { log } = scene
  await register(scene, 'join_token')
  const first = await eventually('X.509-SVID', () => fetchX509(scene, folder))
  log('ok: X.509-SVID')
  await eventually('JWT-SVID', () => fetchJwt(scene))
  log('ok: JWT-SVID, validated by the agent')
  await rotate(scene)
  await eventually('a new SVID after the rotation', async () => {
    if ((await fetchX509(scene, folder)) === first) throw new Error('still the old SVID')
  })
  log('ok: the authority was prepared, activated, tainted and revoked')
  await restart()
  await eventually('an SVID after the restart', () => fetchX509(scene, folder))
  await eventually('a JWT-SVID after the restart', () => fetchJwt(scene))
  log('ok: the authority was restarted')
}

/** By a certificate of its own: joins, and serves. */
async function shortTour(scene: Scene, folder: string): Promise<void> {
  await register(scene, 'x509pop')
  await eventually('X.509-SVID', () => fetchX509(scene, folder))
  scene.log('ok: x509pop')
}

function startAgent(
  program: string,
  { folder, ...config }: StockConfig & { readonly folder: string },
  args: readonly string[],
  undo: AsyncDisposableStack,
) {
  const file = configFor(folder, config)
  const agent = spawn(program, ['run', '-config', file, ...args], {
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  const ended = once(agent, 'exit')
  undo.defer(async () => {
    agent.kill()
    await ended
  })
  const died = ended.then(([code]) => Promise.reject(new Error(`the agent ended with ${code}`)))
  died.catch(() => {})
  return { socket: join(folder, config.name, 'run', 'api.sock'), died }
}

async function run(surroundings: Surroundings): Promise<Outcome> {
  const { log } = surroundings
  const stock = await buildStock(surroundings)
  if (stock.kind === 'skipped') return stock
  const folder = mkdtempSync(join(tmpdir(), 'castellan-spire-agent-'))
  await using undo = new AsyncDisposableStack()
  undo.defer(() => rmSync(folder, { recursive: true, force: true }))
  writeNodeCertificate(folder)
  const ca = undo.use(await restartable(folder))
  writeFileSync(join(folder, 'bundle.pem'), await rootsOf(ca.socket))
  const local = undo.use(connectLocally(ca.socket))
  const { value: token } = await local.client(Agent).createJoinToken({ ttl: 600 })
  const start = (config: Omit<StockConfig, 'port'>, ...args: string[]) => {
    const { socket, died } = startAgent(
      stock.agent,
      { folder, port: ca.port, ...config },
      args,
      undo,
    )
    return { scene: { program: stock.agent, socket, local, log }, died }
  }
  const byToken = start(
    { name: 'token', attestor: '"join_token" { plugin_data {} }' },
    '-joinToken',
    token,
  )
  await Promise.race([tour(byToken.scene, folder, ca.restart), byToken.died])
  // the authority of the first one was revoked meanwhile
  writeFileSync(join(folder, 'bundle.pem'), await rootsOf(ca.socket))
  const paths = `private_key_path = "${join(folder, 'node.key')}" certificate_path = "${join(folder, 'node.pem')}"`
  const byCertificate = start({
    name: 'certificate',
    attestor: `"x509pop" { plugin_data { ${paths} } }`,
  })
  await Promise.race([shortTour(byCertificate.scene, folder), byCertificate.died])
  return { kind: 'ok' }
}

export const spireAgent: Interop = { name: 'spire-agent', run }
