// A caller that is denied while it has streams open through a real Envoy: they end in about a second, whoever
// decides, and whatever they speak; so do those to a server that is denied.
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createClient } from '@connectrpc/connect'
import { DenyRules } from '../../proto/gen/castellan/deny/v1/deny_rules_pb.js'
import { systemClock } from '../../runtime/clock.ts'
import { clientId, type DrivenEnvoy, startDrivenEnvoy } from '../support/driven-envoy.ts'
import { findEnvoy } from '../support/envoy.ts'
import { getRaw } from '../support/raw-http1.ts'
import {
  type OpenStream,
  openHttp2,
  openOutbound,
  openRaw,
  startEndless,
  startPeer,
} from './envoy-revoked-streams.ts'
import { eventually, inTime, until } from './eventually.ts'
import type { Interop, Outcome, Surroundings } from './interop.ts'

/** milliseconds from the ban to the end of what is open, which a busy machine may take for a second; age takes longer */
const most = 10_000

function demand(isSo: boolean, what: string): asserts isSo {
  if (!isSo) throw new Error(what)
}

const policy = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: web, namespace: shop }
spec: { action: ALLOW, rules: [{}] }
`

type Target = { readonly case: 'spiffeId' | 'serial'; readonly value: string }

/** Milliseconds until all have ended after the client's identity was denied. */
async function endsOf(
  it: DrivenEnvoy,
  open: readonly ((it: DrivenEnvoy) => Promise<OpenStream>)[],
  target: Target = { case: 'spiffeId', value: clientId },
): Promise<number> {
  const rules = createClient(DenyRules, it.node.local)
  using stack = new DisposableStack()
  const streams: OpenStream[] = []
  for (const one of open) streams.push(stack.use(await one(it)))
  const began = systemClock.monotonic()
  const { id } = await rules.addRule({ rule: { target, reason: 'a drill' } })
  await Promise.all(streams.map(({ what, ended }) => inTime(`${what} ends`, ended)))
  const took = Math.round(systemClock.monotonic() - began)
  demand(took < most, `${streams.length} streams ended after ${took} ms`)
  await rules.removeRule({ id })
  return took
}

const direct = (it: DrivenEnvoy) => ({ port: it.ports.inbound, svid: it.svid(), roots: it.roots() })

async function untilServed(it: DrivenEnvoy): Promise<void> {
  await eventually('requests pass', async () => {
    for (const way of [direct(it), { port: it.ports.outbound }]) {
      const { status } = await getRaw(way, '/ok')
      demand(status === 200, `GET /ok at ${way.port}: ${status}`)
    }
  })
}

const elsewhere = policy.replace('namespace: shop', 'namespace: elsewhere')
const nobody = policy.replace('rules: [{}]', 'rules: []')

/** Connections of bytes are asked about once: they end when others may have them, and not before. */
async function followsRules(it: DrivenEnvoy): Promise<number> {
  using stream = await openRaw(it)
  const versionOf = async () => (await it.status()).proxies[0]?.policyVersion
  const before = await versionOf()
  await it.apply(policy, elsewhere)
  await until('policies of others are in force', async () => (await versionOf()) !== before)
  const still = await Promise.race([
    stream.ended.then(() => false),
    untilServed(it).then(() => true),
  ])
  demand(still, 'a policy of others has ended a connection')
  const began = systemClock.monotonic()
  await it.apply(nobody)
  await inTime('a connection that nobody may have any more ends', stream.ended)
  const took = Math.round(systemClock.monotonic() - began)
  demand(took < most, `a connection that nobody may have any more ended after ${took} ms`)
  await it.apply(policy)
  await untilServed(it)
  return took
}

/** An agent that starts again after a denial was over has nothing to end. */
async function startsAgain(it: DrivenEnvoy): Promise<void> {
  const listenersOf = async () => {
    const [proxy] = (await it.status()).proxies
    demand(proxy !== undefined && proxy.policyVersion > 0n, 'no proxy is driven')
    return proxy.resources.find(({ kind }) => kind === 'listeners')?.toldVersion ?? ''
  }
  const before = await eventually('the proxy is driven', listenersOf)
  await it.node.restartAgent()
  const after = await eventually('the proxy is driven again', listenersOf)
  // by differences it is told nothing where nothing is new
  demand(['', before].includes(after), `listeners were ${before}, and are ${after}`)
}

interface Case {
  readonly protocol: 'http' | 'tcp'
  readonly decides: 'native' | 'agent'
}

async function cuts(envoy: string, { protocol, decides }: Case): Promise<string> {
  const socket = join(mkdtempSync(join(tmpdir(), 'castellan-authz-')), 's')
  const asked = decides === 'agent' || protocol === 'tcp'
  await using backend = await startEndless()
  await using it = await startDrivenEnvoy({
    ...{ envoy, decides, backend: backend.port, delta: decides === 'native' },
    agent: asked ? { decisions: { socket } } : {},
    ...{ inbound: { protocol }, outbound: { protocol } },
  })
  await it.apply(policy)
  await using peer = await startPeer(it)
  it.edit((spec) => ({
    ...spec,
    outbound: spec.outbound.map((one) => ({
      ...{ ...one, expect: [clientId], destination: `127.0.0.1:${peer.port}` },
    })),
  }))
  await untilServed(it)
  const came = await endsOf(it, protocol === 'http' ? [openRaw, openHttp2] : [openRaw])
  await untilServed(it)
  await startsAgain(it)
  await untilServed(it)
  const went = await endsOf(it, [openOutbound])
  await untilServed(it)
  const bytes = protocol === 'tcp' ? `, at a change of policy ${await followsRules(it)} ms` : ''
  const one = { case: 'serial', value: it.svid().serial } as const
  const both = await endsOf(it, [openRaw, openOutbound], one)
  const { proxies } = await it.status()
  const said = proxies[0]?.remarks.filter((one) => one.includes('drain-time')) ?? []
  demand(said.length === 0, `agent status says ${said.join()}`)
  return `${came} ms, those to a denied server ${went} ms, both of a denied certificate ${both} ms${bytes}`
}

async function runAll({ log }: Surroundings): Promise<Outcome> {
  const envoy = await findEnvoy(log)
  if (envoy.kind === 'missing') return { kind: 'skipped', reason: envoy.reason }
  const native = await cuts(envoy.path, { protocol: 'http', decides: 'native' })
  log(`ok streams of a denied caller that Envoy let in end after ${native}`)
  const asked = await cuts(envoy.path, { protocol: 'http', decides: 'agent' })
  log(`ok streams that the agent let in end after ${asked}`)
  const bytes = await cuts(envoy.path, { protocol: 'tcp', decides: 'agent' })
  log(`ok connections of any kind end after ${bytes}`)
  return { kind: 'ok' }
}

export const envoyRevoked: Interop = { name: 'envoy-revoked', run: runAll }
