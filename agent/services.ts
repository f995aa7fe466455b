// Services as this node knows them: where they are reached, which of its proxies serve some, which look for others.
import type { MessageInitShape } from '@bufbuild/protobuf'
import type { ServicesSchema } from '../proto/gen/castellan/control/v1/control_pb.js'
import type { ServiceEndpoint } from '../proxy-spec/endpoint.ts'
import type { Clock } from '../runtime/clock.ts'
import { address, addressText } from '../runtime/config.ts'
import { createLatest, createTopic, type Running, run } from '../runtime/lifecycle.ts'
import { isSpiffeId, type SpiffeId } from '../spiffe/id.ts'
import type { AgentConfig } from './config.ts'
import type { Knowledge } from './knowledge.ts'
import type { ProxyLedger } from './proxies/ledger.ts'
import type { Ledger } from './sidecar/ledger.ts'

export interface Served {
  readonly service: string
  readonly spiffeId: SpiffeId
  /** host:port */
  readonly address: string
}

type Said = Exclude<MessageInitShape<typeof ServicesSchema>, { $typeName: string }>

export interface Services {
  /** Those that agent.yaml names, and these. */
  of(names: Iterable<string>): ReadonlyMap<string, readonly ServiceEndpoint[]>
  /** What the authority is told. */
  said(): Said
  onChange(listener: () => void): Disposable
  /** Notices proxies that come and go, until it is disposed. */
  follow(): Running
}

export interface ServicesOptions {
  readonly configured: AgentConfig['services']
  readonly knowledge: Pick<Knowledge, 'endpoints' | 'onChange'>
  readonly ledger: Pick<Ledger, 'sidecars' | 'onChange'>
  readonly proxies: Pick<ProxyLedger, 'proxies' | 'specs' | 'onChange'>
  readonly clock: Clock
}

/** milliseconds: a proxy that starts again, or lost its agent, is back by then */
const grace = 5_000
/** milliseconds after an agent's start at which its proxies have found it again */
const gathering = 15_000

const keyOf = ({ service, spiffeId, address: where }: Served) => `${service} ${where} ${spiffeId}`

function byText(text: string, id: SpiffeId | undefined): ServiceEndpoint[] {
  const read = address.safeParse(text)
  return read.success ? [{ ...read.data, id }] : []
}

/** By sidecars that say so, and by proxies that are driven, as long as they are connected. */
function servedNow({ ledger, proxies }: ServicesOptions): Served[] {
  const connected = new Set([...proxies.proxies].map(({ id }) => id))
  const driven = proxies
    .specs()
    .flatMap(({ spec, identity }) =>
      spec.inbound.flatMap(({ service, listen, advertise }) =>
        service === undefined || !connected.has(identity)
          ? []
          : [{ service, spiffeId: identity, address: addressText(advertise ?? listen) }],
      ),
    )
  const sidecars = [...ledger.sidecars].flatMap(({ services }) =>
    (services?.served ?? []).flatMap(({ service, spiffeId, address: where }) =>
      isSpiffeId(spiffeId) ? [{ service, spiffeId, address: where }] : [],
    ),
  )
  return [...driven, ...sidecars]
}

function wantedNow({ ledger, proxies }: ServicesOptions): string[] {
  const driven = proxies
    .specs()
    .flatMap(({ spec }) => spec.outbound.flatMap(({ service }) => service ?? []))
  const sidecars = [...ledger.sidecars].flatMap(({ services }) => services?.wanted ?? [])
  return [...new Set([...driven, ...sidecars])].sort()
}

/** What is served now, and what was a moment ago. */
function createServed(options: ServicesOptions) {
  const { clock } = options
  /** by key; `until` by a clock that nobody sets, undefined while it is served */
  const known = new Map<string, { readonly it: Served; until: number | undefined }>()
  return {
    all: () => [...known].sort(([one], [other]) => (one < other ? -1 : 1)).map(([, { it }]) => it),
    /** Milliseconds until it is to be called again; undefined when nothing is about to end. */
    look(): number | undefined {
      const now = clock.monotonic()
      const keys = new Set<string>()
      for (const it of servedNow(options)) {
        keys.add(keyOf(it))
        known.set(keyOf(it), { it, until: undefined })
      }
      for (const [key, entry] of known) {
        if (keys.has(key)) continue
        entry.until ??= now + grace
        if (entry.until <= now) known.delete(key)
      }
      const ends = [...known.values()].flatMap(({ until }) => until ?? [])
      return ends.length === 0 ? undefined : Math.max(Math.min(...ends) - now, 10)
    },
  }
}

const textOf = (value: unknown): string => JSON.stringify(value)

export function createServices(options: ServicesOptions): Services {
  const { configured, knowledge, ledger, proxies, clock } = options
  const topic = createTopic<void>()
  const served = createServed(options)
  const began = clock.monotonic()
  const isWhole = () => clock.monotonic() - began >= gathering

  function endpointsOf(name: string): readonly ServiceEndpoint[] {
    const all = [
      ...(configured[name] ?? []).flatMap((text) => byText(text, undefined)),
      ...[...served.all(), ...knowledge.endpoints()]
        .filter(({ service }) => service === name)
        .flatMap(({ address: where, spiffeId }) =>
          isSpiffeId(spiffeId) ? byText(where, spiffeId) : [],
        ),
    ]
    return [...new Map(all.map((it) => [`${addressText(it)} ${it.id}`, it])).values()]
  }

  const said = (): Said => ({
    served: served.all(),
    wanted: wantedNow(options),
    whole: isWhole(),
  })

  async function notice(signal: AbortSignal): Promise<void> {
    using wake = createLatest<true>(signal)
    const ring = () => wake.push(true)
    using _ = new DisposableStack()
    _.use(ledger.onChange(ring))
    _.use(proxies.onChange(ring))
    const later = (ms: number) => clock.sleep(ms, { signal }).then(ring, () => {})
    later(gathering)
    let told = ''
    ring()
    for await (const __ of wake) {
      const next = served.look()
      if (next !== undefined) later(next)
      const text = textOf(said())
      if (text === told) continue
      told = text
      topic.publish()
    }
  }

  return {
    of: (names) =>
      new Map(
        [...new Set([...Object.keys(configured), ...names])].map((it) => [it, endpointsOf(it)]),
      ),
    said,
    onChange: (listener) => topic.subscribe(listener),
    follow: () => run(notice),
  }
}
