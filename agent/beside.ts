// What an agent does beside the Workload API: loaded while workloads that waited for it are served already.
import { dirname } from 'node:path'
import { privateFolder } from '../runtime/durable.ts'
import { healthService } from '../runtime/grpc/health.ts'
import { reflectionServices } from '../runtime/grpc/reflection.ts'
import { type GrpcServer, startGrpcServer } from '../runtime/grpc/server.ts'
import type { Service } from '../runtime/grpc/service.ts'
import { selfTest } from '../runtime/self-test.ts'
import { type AdminOptions, adminService } from './admin.ts'
import type { Caller } from './attest/caller.ts'
import { callerFields, readingOf } from './audience.ts'
import type { DecisionServer } from './authz/start.ts'
import type { Core } from './core.ts'
import { delegatedIdentityService } from './delegated-identity/service.ts'
import { materialOfAgent } from './files/of-agent.ts'
import { type FileWriter, startFileWriter } from './files/writer.ts'
import type { Driving } from './proxies/driving.ts'
import { workloadPortOf } from './proxies/ledger.ts'
import type { Serving } from './serving.ts'
import { sidecarService } from './sidecar/service.ts'
import { aggregatedService } from './xds/ads.ts'
import { secretService } from './xds/service.ts'

/** The public socket's services beside `first`, which it has from its start. */
export function moreServices(
  core: Core,
  { driven }: Driving,
  first: readonly Service<Caller>[],
): Service<Caller>[] {
  const { knowledge, ledger, audience, services, session, log } = core
  const more = [
    sidecarService({ knowledge, ledger, audience, services, session, log }),
    secretService(core),
    aggregatedService({ ...core, driven }),
    healthService<Caller>(() => (knowledge.isComplete() ? 'serving' : 'not serving')),
  ]
  const all = [...first, ...more].map(({ descriptor }) => descriptor)
  return [...more, ...reflectionServices<Caller>(all)]
}

function startAdmin(
  core: Core,
  { entitled, jwt, references, explain, callers }: Serving,
  parts: Pick<AdminOptions, 'files' | 'unread' | 'deciding'>,
): Promise<GrpcServer<Caller>> {
  const { config, knowledge, cache, clock, log } = core
  const delegates = new Set(config.delegates)
  privateFolder(dirname(config.adminSocket))
  return startGrpcServer<Caller>({
    listen: { path: config.adminSocket, mode: 0o600 },
    services: [
      adminService({ ...core, explain, ...parts }),
      delegatedIdentityService({ knowledge, cache, entitled, jwt, references, delegates }),
    ],
    peer: callers,
    disconnected: (caller) => caller[Symbol.dispose](),
    reading: readingOf(log, callerFields),
    clock,
  })
}

/** Loads what answers decisions, if it is asked for; the socket opens when what it returns is called. */
async function prepareDeciding(core: Core, { crowd }: Serving) {
  const { decisions: config } = core.config
  if (config === undefined) return undefined
  const { startDecisions } = await import('./authz/start.ts')
  const workloadPort = workloadPortOf(core.proxies)
  return (): Promise<DecisionServer> => startDecisions({ ...core, config, workloadPort, crowd })
}

/** What runs whether this node has joined or not; disposed after the connection to the authority. */
export interface Beside extends AsyncDisposable {
  readonly files: FileWriter
  /** Answers decisions from now on, where the configuration says so. Throws when their socket cannot be had. */
  decide(): Promise<void>
  /** see GrpcServer; of the sockets for administration and for decisions */
  drain(): Promise<void>
}

/** Throws ERR_RUNTIME where Node hides what authentication rests on. */
export async function startBeside(
  core: Core,
  serving: Serving,
  server: GrpcServer<Caller>,
): Promise<Beside> {
  await selfTest()
  await using starting = new AsyncDisposableStack()
  const { config, clock, log } = core
  const files = starting.use(
    startFileWriter({ sets: config.files, source: materialOfAgent(core), clock, log }),
  )
  let deciding: DecisionServer | undefined
  const shown = { files, unread: server.unread, deciding: () => deciding }
  const admin = starting.use(await startAdmin(core, serving, shown))
  starting.use(core.audience.carry(admin))
  if (config.operations !== undefined) {
    const { startAgentOperations } = await import('./operations.ts')
    starting.use(
      await startAgentOperations(core, {
        listen: config.operations,
        files,
        servers: [server, admin],
      }),
    )
  }
  const startDeciding = await prepareDeciding(core, serving)
  const running = starting.move()
  return {
    files,
    async decide() {
      const server = await startDeciding?.()
      // a start that was given up meanwhile
      if (running.disposed) await server?.[Symbol.asyncDispose]()
      else if (server !== undefined) deciding = running.use(server)
    },
    drain: async () => void (await Promise.all([admin.drain(), deciding?.drain()])),
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  }
}
