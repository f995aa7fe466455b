// A node whose agent drives a real Envoy by a proxy spec: an inbound listener before a backend that says what
// reached it, an outbound one that leads to it.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createClient } from '@connectrpc/connect'
import { stringify } from 'yaml'
import { envoyBootstrap } from '../../agent/proxies/envoy/bootstrap.ts'
import { type OwnSvid, startX509Source, type X509Source } from '../../client/x509-source.ts'
import { Policies } from '../../proto/gen/castellan/policy/v1/policies_pb.js'
import type { AgentStatus } from '../../proto/gen/castellan/workload/v1/admin_pb.js'
import { Bundle } from '../../proto/gen/spire/api/server/bundle/v1/bundle_pb.js'
import { bundleToPem, type X509Bundle } from '../../spiffe/bundle.ts'
import { parseTrustDomain } from '../../spiffe/id.ts'
import { agentStatus } from './agent-status.ts'
import { type RunningEnvoy, startEnvoy } from './envoy.ts'
import { testFolder } from './folder.ts'
import { type NodeOptions, startNode, type TestNode, trustDomain } from './node.ts'
import { freePorts } from './ports.ts'
import { type Reached, startReached } from './reached.ts'

export const envoyId = `spiffe://${trustDomain}/ns/shop/sa/web`
export const clientId = `spiffe://${trustDomain}/ns/shop/sa/client`

/** What an Envoy is driven by. */
export interface DrivingNode
  extends AsyncDisposable,
    Pick<TestNode, 'folder' | 'local' | 'register'> {
  readonly agent: Pick<TestNode['agent'], 'socket' | 'adminSocket'>
}

export interface DrivenEnvoy<N extends DrivingNode = TestNode> extends AsyncDisposable {
  readonly node: N
  /** of the workload that Envoy is */
  readonly entryId: string
  readonly source: X509Source
  readonly ports: { readonly inbound: number; readonly outbound: number; readonly backend: number }
  /** what the backend has seen, the newest last */
  readonly reached: readonly Reached[]
  envoy: RunningEnvoy
  svid(): OwnSvid
  roots(): string
  spec(): SpecText
  /** Writes the spec anew, with changes. */
  edit(change: (spec: SpecText) => SpecText): void
  /** Replaces all policies: a file each. */
  apply(...texts: readonly string[]): Promise<void>
  status(): Promise<AgentStatus>
  startEnvoy(): Promise<void>
}

/** As it stands in the file. */
export interface SpecText {
  readonly identity: string
  readonly inbound: readonly Readonly<Record<string, unknown>>[]
  readonly outbound: readonly Readonly<Record<string, unknown>>[]
}

export interface DrivenEnvoyOptions {
  readonly envoy: string
  readonly delta: boolean
  readonly svidLifetime?: string
  /** those of other trust domains that the workload believes */
  readonly federated?: readonly X509Bundle[]
  /** further keys of agent.yaml */
  readonly agent?: Readonly<Record<string, unknown>>
  readonly inbound?: Readonly<Record<string, unknown>>
  readonly outbound?: Readonly<Record<string, unknown>>
  /** who decides where Envoy could alone */
  readonly decides?: 'native' | 'agent'
  /** port of a backend that runs elsewhere */
  readonly backend?: number
}

/** Gives the authority these bundles of other trust domains, in the place of what it had of them. */
export async function federate(
  node: Pick<TestNode, 'local'>,
  bundles: readonly X509Bundle[],
): Promise<void> {
  const bundle = bundles.map(({ trustDomain: name, authorities }) => ({
    trustDomain: name,
    x509Authorities: authorities.map(({ der }) => ({ asn1: new Uint8Array(der) })),
  }))
  const { results } = await createClient(Bundle, node.local).batchSetFederatedBundle({ bundle })
  for (const { status } of results) {
    if (status?.code !== 0) throw new Error(`bundle refused: ${status?.message}`)
  }
}

function specOf(
  { inbound, outbound, backend }: DrivenEnvoy['ports'],
  more: Pick<DrivenEnvoyOptions, 'inbound' | 'outbound'>,
): SpecText {
  return {
    identity: envoyId,
    inbound: [
      {
        name: 'web',
        listen: `127.0.0.1:${inbound}`,
        protocol: 'http',
        forwardTo: `127.0.0.1:${backend}`,
        ...more.inbound,
      },
    ],
    outbound: [
      {
        name: 'self',
        listen: `127.0.0.1:${outbound}`,
        protocol: 'http',
        destination: `127.0.0.1:${inbound}`,
        expect: [envoyId],
        ...more.outbound,
      },
    ],
  }
}

const rootsIn = (source: X509Source) =>
  source
    .bundles()
    .filter((it) => it.trustDomain === parseTrustDomain(trustDomain))
    .map(bundleToPem)
    .join('')

export const startDrivenEnvoy = (options: DrivenEnvoyOptions): Promise<DrivenEnvoy> =>
  driveEnvoy(options, startNode)

/** The same by a node of another kind. */
export async function driveEnvoy<N extends DrivingNode>(
  options: DrivenEnvoyOptions,
  start: (options: NodeOptions) => Promise<N>,
): Promise<DrivenEnvoy<N>> {
  const { envoy: program, delta, svidLifetime = '1h', agent = {}, decides } = options
  const { federated = [] } = options
  await using starting = new AsyncDisposableStack()
  const folder = starting.use(testFolder()).path
  const reached: Reached[] = []
  const backend =
    options.backend === undefined
      ? starting.use(await startReached(reached))
      : { port: options.backend }
  const [inbound = 0, outbound = 0] = await freePorts(2)
  const file = join(folder, 'web.yaml')
  const ports = { inbound, outbound, backend: backend.port }
  let spec = specOf(ports, options)
  writeFileSync(file, stringify(spec))
  const proxies = [{ spec: file, driver: 'envoy', decisions: decides ?? 'native' }]
  const node = starting.use(await start({ svidLifetime, agent: { proxies, ...agent } }))
  const uid = `unix:uid:${process.getuid?.()}`
  await federate(node, federated)
  const federatesWith = federated.map((it) => it.trustDomain)
  const selectors = [uid, `unix:path:${program}`]
  const entryId = await node.register('/ns/shop/sa/web', selectors, { federatesWith })
  await node.register('/ns/shop/sa/client', [uid, `unix:path:${process.execPath}`])
  const source = starting.use(startX509Source({ kind: 'unix', path: node.agent.socket }))
  await source.ready(AbortSignal.timeout(60_000))
  const bootstrap = envoyBootstrap({
    ...{ socket: node.agent.socket, admin: join(folder, 'envoy.sock'), nodeId: 'test', delta },
  })
  const run = () => startEnvoy(program, { name: 'driven', folder, bootstrap })
  let envoy = await run()
  starting.defer(() => envoy[Symbol.asyncDispose]())
  const started = starting.move()
  return {
    ...{ node, entryId, source, ports, reached },
    get envoy() {
      return envoy
    },
    svid() {
      const svid = source.svid()
      if (svid === undefined) throw new Error('the client has no SVID')
      return svid
    },
    roots: () => rootsIn(source),
    spec: () => spec,
    edit(change) {
      spec = change(spec)
      writeFileSync(file, stringify(spec))
    },
    async apply(...texts) {
      const files = texts.map((text, i) => ({ name: `test-${i}.yaml`, text }))
      await createClient(Policies, node.local).applyPolicies({ files })
    },
    status: () => agentStatus(node.agent.adminSocket),
    async startEnvoy() {
      envoy = await run()
    },
    [Symbol.asyncDispose]: () => started.disposeAsync(),
  }
}
