// A real Envoy whose requests and connections our agent decides about: allowed, denied, restarts of the agent,
// and hand-overs of the socket while requests are under way.
import { mkdtempSync, rmSync } from 'node:fs'
import type { Agent } from 'node:http'
import { Agent as TlsAgent, request as tlsRequest } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createClient } from '@connectrpc/connect'
import type { OwnSvid } from '../../client/x509-source.ts'
import { startX509Source } from '../../client/x509-source.ts'
import { Policies } from '../../proto/gen/castellan/policy/v1/policies_pb.js'
import { bundleToPem } from '../../spiffe/bundle.ts'
import { explain } from '../../spiffe/errors.ts'
import { toPem } from '../../spiffe/pem.ts'
import {
  bundleMessage,
  type Deciding,
  entryOf,
  payments,
  startDeciding,
  web,
} from '../agent/authz/deciding.ts'
import { findEnvoy, startEnvoy } from '../support/envoy.ts'
import { makeTestAuthority, type TestAuthority } from '../support/mesh.ts'
import { startNode } from '../support/node.ts'
import { policyText } from '../support/policy-text.ts'
import { freePorts } from '../support/ports.ts'
import { dial, untilClosed } from '../support/sidecar.ts'
import { startBackend } from './envoy-authz-backend.ts'
import { authzBootstrap, type Ports, type Tls } from './envoy-authz-bootstrap.ts'
import { eventually, until } from './eventually.ts'
import type { Interop, Outcome, Surroundings } from './interop.ts'

const other = 'spiffe://example.org/ns/shop/sa/other'
const policies = [
  policyText(
    `[{ from: [{ source: { principals: [example.org/ns/shop/sa/web] } }], to: [{ operation: { paths: [/ok*], ports: ['8080'] } }] }]`,
    { name: 'http' },
  ),
  policyText(`[{ to: [{ operation: { paths: [/ok/secret*], ports: ['8080'] } }] }]`, {
    name: 'secret',
    action: 'DENY',
  }),
].join('---\n')
const tcpPolicies = (port: number) =>
  policyText(
    `[{ from: [{ source: { principals: [example.org/ns/shop/sa/web] } }], to: [{ operation: { ports: ['${port}'] } }] }]`,
    { name: 'tcp' },
  )

const pemOf = ({ chain }: Pick<OwnSvid, 'chain'>) =>
  chain.map((der) => toPem(der, 'CERTIFICATE')).join('')
const keyOf = ({ key }: OwnSvid) => String(key.export({ format: 'pem', type: 'pkcs8' }))
const tlsOf = (svid: OwnSvid, roots: string): Tls => ({
  chain: pemOf(svid),
  key: keyOf(svid),
  roots,
})

function demand(isSo: boolean, what: string): asserts isSo {
  if (!isSo) throw new Error(what)
}

interface Client {
  readonly port: number
  readonly svid?: OwnSvid | undefined
  readonly roots: string
  readonly agent?: Agent | false
  readonly headers?: Readonly<Record<string, string>>
}

interface Answer {
  readonly status: number
  /** of the backend: whom it was told; else what the client was told */
  readonly text: string
}

function ask(
  path: string,
  { port, svid, roots, agent = false, headers = {} }: Client,
): Promise<Answer> {
  const identity = svid === undefined ? {} : { cert: pemOf(svid), key: keyOf(svid) }
  const { promise, resolve, reject } = Promise.withResolvers<Answer>()
  const request = tlsRequest({
    ...{ host: '127.0.0.1', port, path, agent, headers, timeout: 20_000, ca: roots },
    checkServerIdentity: () => undefined,
    ...identity,
  })
  request.on('error', reject)
  request.on('timeout', () => request.destroy(new Error('no answer')))
  request.on('response', (response) => {
    let text = ''
    response.setEncoding('utf8')
    response.on('data', (chunk: string) => {
      text += chunk
    })
    response.on('end', () => resolve({ status: response.statusCode ?? 0, text }))
  })
  request.end()
  return promise
}

/** Envoy says that it starts its workers before they listen: until then one is refused. */
const servesAt = (client: Client) =>
  eventually('an allowed request', async () => {
    const { status } = await ask('/ok', client)
    demand(status === 200, `${status}`)
  })

interface Scene {
  readonly envoy: string
  readonly log: (line: string) => void
  readonly folder: string
}

/** A real agent: who asks is Envoy's process, its entry says for whom. */
async function withRealAgent({ envoy, log, folder }: Scene): Promise<void> {
  await using stack = new AsyncDisposableStack()
  const node = stack.use(await startNode({ agent: { decisions: { socket: 'run/authz.sock' } } }))
  const uid = `unix:uid:${process.getuid?.()}`
  const envoySelectors = [`unix:path:${envoy}`]
  await node.register('/ns/shop/sa/payments', [uid, ...envoySelectors])
  // this process plays the client, and writes down the certificate that Envoy shows
  const own = `unix:path:${process.execPath}`
  await node.register('/ns/shop/sa/web', [own])
  await node.register('/ns/shop/sa/payments', [own])
  const source = stack.use(startX509Source({ kind: 'unix', path: node.agent.socket }))
  await source.ready(AbortSignal.timeout(60_000))
  const { svids = [] } = source.current() ?? {}
  const svid = svids.find(({ id }) => id === web)
  const server = svids.find(({ id }) => id === payments)
  const [bundle] = source.bundles()
  if (svid === undefined || server === undefined || bundle === undefined)
    throw new Error('there is no SVID')
  const roots = bundleToPem(bundle)
  const backend = stack.use(await startBackend())
  const [http = 0, tcp = 0] = await freePorts(2)
  const ports: Ports = { http, tcp, backend: backend.http, bytes: backend.tcp }
  const client = createClient(Policies, node.local)
  const text = [policies, tcpPolicies(tcp)].join('---\n')
  await client.applyPolicies({ files: [{ name: 'shop.yaml', text }] })
  const bootstrap = authzBootstrap(
    {
      agent: join(node.folder, 'run/authz.sock'),
      admin: join(folder, 'real.sock'),
      tls: tlsOf(server, roots),
    },
    ports,
  )
  stack.use(await startEnvoy(envoy, { name: 'real', folder, bootstrap }))
  const mine: Client = { port: http, svid, roots }
  await servesAt(mine)
  const spoofed = await ask('/ok?x=1', { ...mine, headers: { 'x-spiffe-peer-id': other } })
  demand(spoofed.text === web, `the workload was told ${spoofed.text}`)
  const denied = await ask('/ok/secret', mine)
  demand(
    denied.status === 403 && denied.text === 'access denied\n',
    `denied: ${JSON.stringify(denied)}`,
  )
  demand((await ask('/ok/%2561', mine)).status === 400, 'an ambiguous path')
  demand((await ask('/ok', { port: http, roots })).status === 403, 'without a certificate')
  log('a real agent: allowed, denied, ambiguous, without a certificate')
  // Envoy asks once the client has said something: what a workload says before is heard
  const bytes = async (shown: object) => {
    const where = { host: '127.0.0.1', port: tcp, ca: roots, checkServerIdentity: () => undefined }
    const socket = await dial({ ...where, ...shown })
    const said = untilClosed(socket)
    socket.write('hello')
    return await said
  }
  const told = await bytes({ cert: pemOf(svid), key: keyOf(svid) })
  demand(told === 'welcome', `a connection that is allowed: ${told}`)
  const refused = await bytes({})
  demand(refused === '', `a connection that is not: ${refused}`)
  log('network filter: allowed, denied')
  await node.restartAgent()
  await until('an answer after a restart', async () => (await ask('/ok', mine)).status === 200)
  log('answers again after a restart of the agent')
}

async function startNext(path: string, authority: TestAuthority): Promise<Deciding> {
  const deciding = await startDeciding({ path })
  const { entry, labels } = entryOf(payments)
  const bundle = bundleMessage(authority.bundle)
  deciding.apply({ snapshot: true, bundle, entries: [entry], labels: [labels] })
  deciding.putSvid(authority.issue(payments))
  deciding.putPolicies(1n, policies)
  return deciding
}

const handOvers = 10
const clients = 8
/** answers between two hand-overs */
const between = 80

/** Clients that ask one request after the other, each over a connection of its own, until it is disposed. */
function startLoad(client: Client) {
  const counts = new Map<string, number>()
  let isOver = false
  let awaited = { left: 0, reached: () => {} }
  const loop = async () => {
    const agent = new TlsAgent({ keepAlive: true, maxSockets: 1 })
    while (!isOver) {
      const answer = await ask('/ok', { ...client, agent }).catch((error: unknown) => ({
        status: 0,
        text: explain(error),
      }))
      const key = answer.status === 200 ? '200' : `${answer.status} ${answer.text.trim()}`
      counts.set(key, (counts.get(key) ?? 0) + 1)
      if (--awaited.left === 0) awaited.reached()
    }
    agent.destroy()
  }
  const loops = Array.from({ length: clients }, loop)
  return {
    counts,
    /** Resolves after so many answers more. */
    answers: (more: number) =>
      new Promise<void>((reached) => {
        awaited = { left: more, reached }
      }),
    async [Symbol.asyncDispose]() {
      isOver = true
      await Promise.all(loops)
    },
  }
}

/** One decision server after the other at the same path, under requests: none may be lost. */
async function handedOver({ envoy, log, folder }: Scene): Promise<void> {
  await using stack = new AsyncDisposableStack()
  const authority = makeTestAuthority('example.org')
  const path = join(folder, 'authz.sock')
  let current = await startNext(path, authority)
  stack.defer(() => current[Symbol.asyncDispose]())
  const backend = stack.use(await startBackend())
  const [http = 0, tcp = 0] = await freePorts(2)
  const roots = bundleToPem(authority.bundle)
  const bootstrap = authzBootstrap(
    {
      agent: path,
      admin: join(folder, 'handed.sock'),
      tls: tlsOf(authority.issue(payments), roots),
    },
    { http, tcp, backend: backend.http, bytes: backend.tcp },
  )
  stack.use(await startEnvoy(envoy, { name: 'handed', folder, bootstrap }))
  const client = { port: http, svid: authority.issue(web), roots }
  await servesAt(client)
  const load = stack.use(startLoad(client))
  for (let i = 0; i < handOvers; i++) {
    await load.answers(between)
    const next = await startNext(path, authority)
    await current[Symbol.asyncDispose]()
    current = next
  }
  await load.answers(between)
  await load[Symbol.asyncDispose]()
  const { counts } = load
  log(`${handOvers} hand-overs: ${JSON.stringify(Object.fromEntries(counts))}`)
  demand(counts.size === 1 && (counts.get('200') ?? 0) > 100, 'requests were lost')
}

async function run({ log }: Surroundings): Promise<Outcome> {
  const envoy = await findEnvoy(log)
  if (envoy.kind === 'missing') return { kind: 'skipped', reason: envoy.reason }
  const folder = mkdtempSync(join(tmpdir(), 'envoy-authz-'))
  try {
    const scene = { envoy: envoy.path, log, folder }
    await withRealAgent(scene)
    await handedOver(scene)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  return { kind: 'ok' }
}

export const envoyAuthz: Interop = { name: 'envoy-authz', run }
