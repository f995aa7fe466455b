// The embedded sidecar: an ordinary workload to the agent, mutual TLS and decisions to everyone else.
import { endpointFrom } from '../client/endpoint.ts'
import { startX509Source } from '../client/x509-source.ts'
import { createDecisionLog } from '../decisions/decision-log.ts'
import { startIssuers } from '../decisions/issuers.ts'
import { createMesh } from '../decisions/mesh.ts'
import { createTally } from '../decisions/tally.ts'
import type { ProxySpec } from '../proxy-spec/spec.ts'
import { type Clock, systemClock } from '../runtime/clock.ts'
import { addressText } from '../runtime/config.ts'
import type { Log } from '../runtime/log.ts'
import { selfTest } from '../runtime/self-test.ts'
import { explain } from '../spiffe/errors.ts'
import { startControl } from './control.ts'
import { serve } from './serve.ts'

export interface ProxyOptions {
  readonly spec: ProxySpec
  readonly log: Log
  readonly clock?: Clock
  /** where SPIFFE_ENDPOINT_SOCKET is looked up when the spec names no Workload API */
  readonly environment?: Readonly<Record<string, string | undefined>>
  /** ends the wait for the first identity */
  readonly signal?: AbortSignal
}

/** Disposing it drains: requests in flight have five seconds. */
export interface Proxy extends AsyncDisposable {
  readonly listeners: readonly {
    readonly name: string
    readonly address: string
    readonly port: number
  }[]
}

/** Listeners that have chosen their own port are served at that. */
function servicesOf({ inbound, outbound }: ProxySpec, listeners: Proxy['listeners']) {
  return {
    served: inbound.flatMap(({ service, advertise, listen }, i) => {
      const port = listeners[i]?.port ?? listen.port
      const address = addressText(advertise ?? { host: listen.host, port })
      return service === undefined ? [] : [{ service, address }]
    }),
    wanted: outbound.flatMap(({ service }) => service ?? []),
  }
}

/** Listens once the first X.509 context has arrived, and denies everything until policies have. */
export async function startProxy(options: ProxyOptions): Promise<Proxy> {
  const { spec, log, clock = systemClock, environment = {} } = options
  const { signal = new AbortController().signal } = options
  const endpoint = endpointFrom(spec.workloadApi, environment)
  await selfTest()
  await using starting = new AsyncDisposableStack()
  const onTrouble = (error: unknown) =>
    log.warn({ reason: explain(error) }, 'no answer from the Workload API at present')
  const source = starting.use(startX509Source(endpoint, { clock, onTrouble }))
  await source.ready(signal)
  const mesh = createMesh()
  const note = createDecisionLog({ spec: spec.decisionLog, log, clock })
  const tally = createTally(clock, note)
  const serving = starting.use(await serve(spec, { source, mesh, tally, log, clock }))
  const { identities, listeners } = serving
  const issuers = starting.use(
    startIssuers(spec.jwks, {
      remedy: 'jwks.privateAddresses: true in the proxy spec',
      log,
      clock,
    }),
  )
  const inbound = spec.inbound.map(({ forwardTo: { port }, backend }) => ({ port, backend }))
  starting.use(
    startControl({
      endpoint,
      mesh,
      tally,
      identities,
      issuers,
      inbound,
      services: servicesOf(spec, listeners),
      trusted: spec,
      log,
      clock,
    }),
  )
  const started = starting.move()
  return {
    listeners,
    [Symbol.asyncDispose]: () => started.disposeAsync(),
  }
}
