// The whole demonstration, started: authority, agent, two services behind sidecars.
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { create } from '@bufbuild/protobuf'
import { z } from 'zod'
import { agentIdOfToken, hashOfToken, newToken } from '../../ca/attestors/join-token.ts'
import { loadCaConfig } from '../../ca/config.ts'
import { entryFromWire } from '../../ca/entries.ts'
import { openAuthority } from '../../ca/open.ts'
import { prepareState } from '../../ca/state-folder.ts'
import { EntrySchema } from '../../proto/gen/spire/api/types/entry_pb.js'
import { createLog } from '../../runtime/log.ts'
import { bundleToPem } from '../../spiffe/bundle.ts'
import { idToMessage } from '../messages.ts'
import { type Child, type Event, startChild } from './child.ts'
import { type DemoService, startService } from './service.ts'
import {
  identityOf,
  type ServiceName,
  type Stage,
  services,
  setStage,
  trustDomain,
} from './stage.ts'

export interface DevMesh extends AsyncDisposable {
  readonly stage: Stage
  readonly caSocket: string
  readonly adminSocket: string
  readonly payments: DemoService
  /** URLs of frontend's outbound listeners: to payments, and to payments expecting somebody else */
  readonly toPayments: string
  readonly toWrongServer: string
  /** port of the mTLS listener in front of payments */
  readonly paymentsPort: number
  pids(): readonly number[]
  /** those that had to be killed, once it is disposed */
  stubborn(): readonly number[]
}

export interface MeshOptions {
  /** such as `40s` */
  readonly svidLifetime: string
  readonly agentLifetime: string
  readonly signal: AbortSignal
  readonly onEvent?: (who: string, event: Event) => void
  /** called when a program ended by itself; `args` start it again */
  readonly onEnd?: (who: string, how: string, args: readonly string[]) => void
  readonly onProgress?: (what: string) => void
}

const readyProxy = z.object({
  listeners: z.array(z.object({ name: z.string(), port: z.number() })),
})

function listenerPort(child: Child, name: string): number {
  const { listeners } = readyProxy.parse(child.ready)
  return listeners.find((it) => it.name === name)?.port ?? 0
}

/** Ports that were free a moment ago: every program is started at once, so all have to be known before. */
async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'))
  await Promise.all(servers.map((server) => once(server, 'listening')))
  const ports = servers.map((server) => {
    const bound = server.address()
    return typeof bound === 'object' && bound !== null ? bound.port : 0
  })
  await Promise.all(servers.map((server) => once(server.close(), 'close')))
  return ports
}

/** Configuration, first authority, a token for the node, and one entry for each sidecar. */
async function prepareAuthority(
  stage: Stage,
  { svidLifetime, agentLifetime }: MeshOptions,
  port: number,
): Promise<string> {
  const file = stage.write('ca.yaml', {
    trustDomain,
    state: 'ca',
    unlock: { keyFile: 'ca/ca.key' },
    listen: `127.0.0.1:${port}`,
    operations: '127.0.0.1:0',
    svidLifetime,
    agentLifetime,
    authorityLifetime: '1h',
    policies: 'policies',
    development: true,
  })
  const config = loadCaConfig(file)
  prepareState(config)
  await using authority = await openAuthority(config, {
    log: createLog({ name: 'ca', level: 'silent' }),
  })
  writeFileSync(stage.path('bundle.pem'), bundleToPem(authority.authorities.bundle()))
  const token = newToken()
  writeFileSync(stage.path('token'), token, { mode: 0o600 })
  const now = authority.clock.now()
  await authority.store.issuance.createToken({ hash: hashOfToken(token), expiresAt: now + 300_000 })
  for (const service of services) {
    const entry = create(EntrySchema, {
      spiffeId: idToMessage(identityOf(service)),
      parentId: idToMessage(agentIdOfToken(config.trustDomain, token)),
      selectors: [
        { type: 'unix', value: `uid:${process.getuid?.() ?? 0}` },
        // what tells two programs of one user apart
        { type: 'unix', value: `path:${stage.path('bin', `${service}-proxy`)}` },
      ],
    })
    await authority.store.entries.create(entryFromWire(entry, config.trustDomain, now))
  }
  return file
}

function agentConfig(stage: Stage, port: number): string {
  return stage.write('agent.yaml', {
    trustDomain,
    authority: { address: `127.0.0.1:${port}`, bundle: 'bundle.pem' },
    joinTokenFile: 'token',
    state: 'agent-state',
    socket: 'run/agent.sock',
    adminSocket: 'admin/agent-admin.sock',
  })
}

function specFor(
  stage: Stage,
  service: ServiceName,
  listen: number,
  backend: number,
  payments: number,
): string {
  const outbound = (name: string, expect: string) => ({
    name,
    listen: '127.0.0.1:0',
    protocol: 'http',
    destination: `127.0.0.1:${payments}`,
    expect: [expect],
  })
  const ways = [
    outbound('payments', identityOf('payments')),
    outbound('wrong-server', identityOf('ledger')),
  ]
  return stage.write(`${service}.yaml`, {
    workloadApi: `unix://${stage.path('run', 'agent.sock')}`,
    inbound: [
      {
        name: 'inbound',
        listen: `127.0.0.1:${listen}`,
        protocol: 'http',
        forwardTo: `127.0.0.1:${backend}`,
      },
    ],
    ...(service === 'frontend' ? { outbound: ways } : {}),
  })
}

/** Starts everything at once: each program waits for those it needs, as it would on a node that boots. */
export async function startMesh(options: MeshOptions): Promise<DevMesh> {
  const { signal, onEvent = () => {}, onEnd = () => {}, onProgress = () => {} } = options
  await using starting = new AsyncDisposableStack()
  const stage = starting.use(setStage())
  const [caPort = 0, frontendPort = 0, paymentsPort = 0] = await freePorts(3)
  onProgress('preparing an authority')
  const caFile = await prepareAuthority(stage, options, caPort)
  const backends = {
    frontend: await startService('frontend'),
    payments: await startService('payments'),
  }
  for (const backend of Object.values(backends)) starting.use(backend)

  const start = (who: string, program: string, args: readonly string[]) =>
    startChild({
      node: program,
      args,
      logFile: stage.path('log', `${who}.log`),
      signal,
      onEvent: (event) => onEvent(who, event),
      onEnd: (how) => onEnd(who, how, args),
    })
  const runCa = () => start('authority', process.execPath, ['ca', 'run', '--config', caFile])
  const runProxy = (service: ServiceName, port: number) => {
    const spec = specFor(stage, service, port, backends[service].port, paymentsPort)
    return start(service, stage.nodeFor(service), ['proxy', 'run', '--spec', spec])
  }
  onProgress('starting authority, agent, and two services behind sidecars')
  const all = await startAll(starting, [
    runCa(),
    start('agent', process.execPath, ['agent', 'run', '--config', agentConfig(stage, caPort)]),
    runProxy('payments', paymentsPort),
    runProxy('frontend', frontendPort),
  ])
  const [, , , frontend] = all
  const started = starting.move()
  return {
    stage,
    caSocket: stage.path('ca', 'ca.sock'),
    adminSocket: stage.path('admin', 'agent-admin.sock'),
    payments: backends.payments,
    toPayments: `http://127.0.0.1:${listenerPort(frontend, 'payments')}`,
    toWrongServer: `http://127.0.0.1:${listenerPort(frontend, 'wrong-server')}`,
    paymentsPort,
    pids: () => all.map(({ pid }) => pid),
    stubborn: () => all.filter((child) => child.isStubborn).map(({ pid }) => pid),
    [Symbol.asyncDispose]: () => started.disposeAsync(),
  }
}

type Four<T> = readonly [T, T, T, T]

/** Waits for all; when one fails, the others are stopped before its error is told. */
async function startAll(
  stack: AsyncDisposableStack,
  pending: Four<Promise<Child>>,
): Promise<Four<Child>> {
  const [a, b, c, d] = pending
  stack.defer(async () => {
    for (const result of await Promise.allSettled(pending)) {
      if (result.status === 'fulfilled') await result.value[Symbol.asyncDispose]()
    }
  })
  return [await a, await b, await c, await d]
}

/** All that the programs logged, for the check that no secret is in it. */
export function wholeLog({ stage }: DevMesh): string {
  return ['authority', 'agent', ...services]
    .map((who) => readFileSync(stage.path('log', `${who}.log`), 'utf8'))
    .join('')
}
