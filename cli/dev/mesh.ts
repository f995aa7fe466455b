// The whole demonstration, started: authority, agent, two services behind sidecars.
import { readFileSync, writeFileSync } from 'node:fs'
import { create } from '@bufbuild/protobuf'
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
import { freePorts } from './ports.ts'
import { embedded, type Proxies } from './proxies.ts'
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
  readonly proxies: Proxies
  readonly caSocket: string
  readonly adminSocket: string
  readonly payments: DemoService
  /** URLs of frontend's outbound listeners: to payments, and to payments expecting somebody else */
  readonly toPayments: string
  readonly toWrongServer: string
  /** ports of the mTLS listeners in front of the services */
  readonly doors: Readonly<Record<ServiceName, number>>
  pids(): readonly number[]
  /** those that had to be killed, once it is disposed */
  stubborn(): readonly number[]
}

export interface MeshOptions {
  /** such as `40s` */
  readonly svidLifetime: string
  readonly agentLifetime: string
  /** embedded ones when left out */
  readonly proxies?: Proxies
  readonly signal: AbortSignal
  readonly onEvent?: (who: string, event: Event) => void
  /** called when a program ended by itself; `args` start it again */
  readonly onEnd?: (who: string, how: string, args: readonly string[]) => void
  readonly onProgress?: (what: string) => void
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

function agentConfig(stage: Stage, port: number, more: object): string {
  return stage.write('agent.yaml', {
    trustDomain,
    authority: { address: `127.0.0.1:${port}`, bundle: 'bundle.pem' },
    joinTokenFile: 'token',
    state: 'agent-state',
    socket: 'run/agent.sock',
    adminSocket: 'admin/agent-admin.sock',
    ...more,
  })
}

/** Where everybody listens. */
interface Places {
  readonly ca: number
  readonly doors: DevMesh['doors']
  /** frontend's ways out */
  readonly toPayments: number
  readonly toWrongServer: number
}

async function findPlaces(): Promise<Places> {
  const [ca = 0, frontend = 0, payments = 0, toPayments = 0, toWrongServer = 0] = await freePorts(5)
  return { ca, doors: { frontend, payments }, toPayments, toWrongServer }
}

function portsOf(service: ServiceName, places: Places): number[] {
  const { doors, toPayments, toWrongServer } = places
  return service === 'frontend' ? [doors.frontend, toPayments, toWrongServer] : [doors.payments]
}

/** One spec, whatever proxy reads it. */
function writeSpec(stage: Stage, service: ServiceName, backend: number, places: Places): string {
  const { doors, toPayments, toWrongServer } = places
  const outbound = (name: string, listen: number, expect: string) => ({
    name,
    listen: `127.0.0.1:${listen}`,
    protocol: 'http',
    destination: `127.0.0.1:${doors.payments}`,
    expect: [expect],
  })
  const ways = [
    outbound('payments', toPayments, identityOf('payments')),
    outbound('wrong-server', toWrongServer, identityOf('ledger')),
  ]
  return stage.write(`${service}.yaml`, {
    workloadApi: `unix://${stage.path('run', 'agent.sock')}`,
    identity: identityOf(service),
    inbound: [
      {
        name: 'inbound',
        listen: `127.0.0.1:${doors[service]}`,
        protocol: 'http',
        forwardTo: `127.0.0.1:${backend}`,
      },
    ],
    ...(service === 'frontend' ? { outbound: ways } : {}),
  })
}

interface Prepared {
  readonly stage: Stage
  readonly proxies: Proxies
  readonly caFile: string
  readonly places: Places
  readonly specs: Readonly<Record<ServiceName, string>>
}

/** Starts all at once: each program waits for those it needs, as it would on a node that boots. */
function startPrograms(
  { stage, proxies, caFile, places, specs }: Prepared,
  { signal, onEvent = () => {}, onEnd = () => {} }: MeshOptions,
): Promise<Child>[] {
  const about = (who: string, args: readonly string[] = []) => ({
    logFile: stage.path('log', `${who}.log`),
    signal,
    onEvent: (event: Event) => onEvent(who, event),
    onEnd: (how: string) => onEnd(who, how, args),
  })
  const start = (who: string, args: readonly string[]) =>
    startChild({ ...about(who, args), program: process.execPath, args })
  const agentFile = agentConfig(stage, places.ca, proxies.agentKeys(Object.values(specs)))
  const authority = start('authority', ['ca', 'run', '--config', caFile])
  const agent = start('agent', ['agent', 'run', '--config', agentFile])
  const fronts = services.map((service) => {
    const [spec, ports] = [specs[service], portsOf(service, places)]
    return proxies.start({ ...about(service), stage, service, spec, ports, agent })
  })
  return [authority, agent, ...fronts]
}

export async function startMesh(options: MeshOptions): Promise<DevMesh> {
  const { onProgress = () => {}, proxies = embedded } = options
  await using starting = new AsyncDisposableStack()
  const stage = starting.use(setStage())
  const places = await findPlaces()
  onProgress('preparing an authority')
  const caFile = await prepareAuthority(stage, options, places.ca)
  const payments = starting.use(await startService('payments'))
  const frontend = starting.use(await startService('frontend'))
  const specs = {
    frontend: writeSpec(stage, 'frontend', frontend.port, places),
    payments: writeSpec(stage, 'payments', payments.port, places),
  }
  onProgress(`starting authority, agent, and two services behind ${proxies.many}`)
  const prepared = { stage, proxies, caFile, places, specs }
  const all = await startAll(starting, options.signal, (signal) =>
    startPrograms(prepared, { ...options, signal }),
  )
  const started = starting.move()
  const local = (port: number) => `http://127.0.0.1:${port}`
  return {
    ...{ stage, proxies, payments, doors: places.doors },
    caSocket: stage.path('ca', 'ca.sock'),
    adminSocket: stage.path('admin', 'agent-admin.sock'),
    toPayments: local(places.toPayments),
    toWrongServer: local(places.toWrongServer),
    pids: () => all.map(({ pid }) => pid),
    stubborn: () => all.filter((child) => child.isStubborn).map(({ pid }) => pid),
    [Symbol.asyncDispose]: () => started.disposeAsync(),
  }
}

/** Waits for all; when one fails, the others are stopped before its error is told. */
async function startAll(
  stack: AsyncDisposableStack,
  signal: AbortSignal,
  start: (signal: AbortSignal) => Promise<Child>[],
): Promise<Child[]> {
  const failed = new AbortController()
  const pending = start(AbortSignal.any([signal, failed.signal]))
  const settled = Promise.allSettled(pending)
  stack.defer(async () => {
    for (const result of await settled) {
      if (result.status === 'fulfilled') await result.value[Symbol.asyncDispose]()
    }
  })
  try {
    return await Promise.all(pending)
  } catch (error) {
    failed.abort(error)
    throw error
  }
}

/** All that the programs logged, for the check that no secret is in it. */
export function wholeLog({ stage }: DevMesh): string {
  return ['authority', 'agent', ...services]
    .map((who) => readFileSync(stage.path('log', `${who}.log`), 'utf8'))
    .join('')
}
