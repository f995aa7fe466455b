// A whole mesh in this process: authority, agent, one workload behind a sidecar, and a peer that asks it.

import { createClient } from '@connectrpc/connect'
import { startX509Source, type X509Source } from '../../client/x509-source.ts'
import { Policies } from '../../proto/gen/castellan/policy/v1/policies_pb.js'
import { type Proxy as Running, startProxy } from '../../proxy/main.ts'
import { proxySpec } from '../../proxy-spec/spec.ts'
import { createLog } from '../../runtime/log.ts'
import { bundleToPem } from '../../spiffe/bundle.ts'
import { parseSpiffeId, trustDomainOf } from '../../spiffe/id.ts'
import { keyPairToPem } from '../../spiffe/pem.ts'
import { type NodeOptions, startNode, type TestNode } from './node.ts'
import { type App, dial, startApp, untilClosed } from './sidecar.ts'

export const payments = parseSpiffeId('spiffe://example.org/ns/shop/sa/payments')
export const web = parseSpiffeId('spiffe://example.org/ns/shop/sa/web')
const uid = `unix:uid:${process.getuid?.()}`

export interface Guarded extends AsyncDisposable {
  readonly node: TestNode
  readonly app: App
  /** what the sidecar has logged */
  readonly lines: readonly string[]
  /** entry ids */
  readonly entries: { readonly payments: string; readonly web: string }
  /** Puts policies into force at the authority. */
  apply(text: string): Promise<bigint>
  /** The HTTP status of a request of `web` to `payments`. */
  ask(path: string, headers?: string): Promise<string>
  stopProxy(): Promise<void>
}

export interface GuardedOptions extends NodeOptions {
  /** further keys of the proxy spec */
  readonly spec?: Readonly<Record<string, unknown>>
}

async function askOver(source: X509Source, port: number, request: string): Promise<string> {
  const context = source.current()
  const svid = context?.svids.find(({ id }) => id === web)
  const bundle = context?.bundles(trustDomainOf(web))
  if (svid === undefined || bundle === undefined) throw new Error('no identity to ask with')
  const socket = await dial({
    ...{ host: '127.0.0.1', port, ca: bundleToPem(bundle) },
    ...keyPairToPem(svid),
    checkServerIdentity: (_, peer) =>
      peer.subjectaltname === `URI:${payments}` ? undefined : new Error(peer.subjectaltname),
  })
  const answer = untilClosed(socket)
  socket.write(request)
  return await answer
}

export async function startGuarded(options: GuardedOptions = {}): Promise<Guarded> {
  await using starting = new AsyncDisposableStack()
  const { spec, ...ofNode } = options
  const node = starting.use(await startNode(ofNode))
  const entries = {
    payments: await node.register('/ns/shop/sa/payments', [uid]),
    web: await node.register('/ns/shop/sa/web', [uid]),
  }
  const app = starting.use(await startApp((_, response) => response.end('from the workload')))
  const endpoint = { kind: 'unix', path: node.agent.socket } as const
  const source = starting.use(startX509Source(endpoint))
  const lines: string[] = []
  const destination = { write: (line: string) => void lines.push(line) }
  const listener = { listen: '127.0.0.1:0', protocol: 'http', forwardTo: `127.0.0.1:${app.port}` }
  const proxy: Running = starting.use(
    await startProxy({
      spec: proxySpec.parse({
        workloadApi: `unix://${node.agent.socket}`,
        identity: payments,
        inbound: [listener],
        ...spec,
      }),
      log: createLog({ name: 'proxy', destination }),
    }),
  )
  await source.ready(AbortSignal.timeout(60_000))
  const started = starting.move()
  return {
    ...{ node, app, lines, entries },
    async apply(text) {
      const files = [{ name: 'shop.yaml', text }]
      return (await createClient(Policies, node.local).applyPolicies({ files })).version
    },
    async ask(path, headers = '') {
      const port = proxy.listeners[0]?.port ?? 0
      const request = `GET ${path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n${headers}\r\n`
      return (await askOver(source, port, request)).slice(9, 12)
    },
    stopProxy: async () => proxy[Symbol.asyncDispose](),
    [Symbol.asyncDispose]: () => started.disposeAsync(),
  }
}
