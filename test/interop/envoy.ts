// A real Envoy that our agent drives by a proxy spec: by both variants of ADS.

import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createClient } from '@connectrpc/connect'
import { DenyRules } from '../../proto/gen/castellan/deny/v1/deny_rules_pb.js'
import { systemClock } from '../../runtime/clock.ts'
import { run } from '../../runtime/lifecycle.ts'
import {
  clientId,
  type DrivenEnvoy,
  envoyId,
  type SpecText,
  startDrivenEnvoy,
} from '../support/driven-envoy.ts'
import { findEnvoy } from '../support/envoy.ts'
import { freePorts } from '../support/ports.ts'
import { connectRaw, getRaw, type RawAnswer } from '../support/raw-http1.ts'
import { greets, tcpRules } from './envoy-greeting.ts'
import { eventually, inTime } from './eventually.ts'
import type { Interop, Outcome, Surroundings } from './interop.ts'

function demand(isSo: boolean, what: string): asserts isSo {
  if (!isSo) throw new Error(what)
}

const allow = (paths: readonly string[]) => `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: web, namespace: shop }
spec:
  action: ALLOW
  rules:
    - from: [{ source: { principals: ["${clientId.slice('spiffe://'.length)}", "${envoyId.slice('spiffe://'.length)}"] } }]
      to: [{ operation: { methods: [GET], paths: [${paths.map((it) => JSON.stringify(it)).join(', ')}] } }]
`

const direct = (it: DrivenEnvoy) => ({
  port: it.ports.inbound,
  svid: it.svid(),
  roots: it.roots(),
})

function is(answer: RawAnswer, status: number, what: string): void {
  demand(answer.status === status, `${what}: ${answer.status} ${answer.body}, not ${status}`)
}

const valuesOf = (headers: readonly string[], name: string) =>
  headers.flatMap((it, i) =>
    i % 2 === 0 && it.toLowerCase() === name ? (headers[i + 1] ?? '') : [],
  )

async function serves(it: DrivenEnvoy): Promise<void> {
  await it.apply(allow(['/ok', '/deep/*']))
  await eventually('the first request is allowed', async () => {
    is(await getRaw(direct(it), '/ok'), 200, 'GET /ok')
  })
  const forged = { 'x-spiffe-peer-id': 'spiffe://example.org/admin' }
  is(await getRaw(direct(it), '/ok?a=b', forged), 200, 'GET /ok?a=b')
  const last = it.reached.at(-1)
  demand(last?.target === '/ok?a=b', `the backend saw ${last?.target}`)
  const told = valuesOf(last.headers, 'x-spiffe-peer-id')
  demand(told.join() === clientId, `the backend was told of ${told.join()}`)
  is(await getRaw(direct(it), '/admin'), 403, 'GET /admin')
  const out = await getRaw({ port: it.ports.outbound }, '/ok', forged)
  is(out, 200, 'GET /ok, outbound')
  const server = out.headers.get('x-spiffe-peer-id')
  demand(server === envoyId, `the caller was told of ${server}`)
  demand(
    valuesOf(it.reached.at(-1)?.headers ?? [], 'x-spiffe-peer-id').join() === envoyId,
    'outbound requests speak as the identity of the spec',
  )
}

/** Requests one after the other over one connection and over new ones, until it is disposed. */
function startTraffic(it: DrivenEnvoy) {
  const failures: string[] = []
  let count = 0
  const running = run(async (signal) => {
    let kept = connectRaw(direct(it))
    while (!signal.aborted) {
      const before = it.svid().serial
      const answers = [await kept.get('/ok'), await getRaw({ port: it.ports.outbound }, '/ok')]
      count += answers.length
      for (const { status, body } of answers) {
        // the connection reached its age: Envoy says so by closing it between two requests
        if (status === 0) kept = connectRaw(direct(it))
        else if (status !== 200) failures.push(`${status} ${body}`)
      }
      if (it.svid().serial !== before) kept = connectRaw(direct(it))
    }
    kept[Symbol.dispose]()
  })
  return {
    failures,
    count: () => count,
    [Symbol.asyncDispose]: () => running[Symbol.asyncDispose](),
  }
}

/** milliseconds */
async function timed(what: string, isSo: () => Promise<boolean>): Promise<number> {
  const began = systemClock.monotonic()
  await eventually(what, async () => demand(await isSo(), what))
  return Math.round(systemClock.monotonic() - began)
}

async function followsPolicies(it: DrivenEnvoy): Promise<string> {
  using live = connectRaw(direct(it))
  is(await live.get('/deep/a'), 200, 'GET /deep/a, before')
  await it.apply(allow(['/ok']))
  const took = await timed('a live connection is denied', async () => {
    const { status } = await live.get('/deep/a')
    demand(status !== 0, 'the connection was ended instead')
    return status === 403
  })
  is(await live.get('/ok'), 200, 'GET /ok, after')
  return `${took} ms`
}

const patch = (it: SpecText, inbound: object): SpecText => ({
  ...it,
  inbound: it.inbound.map((one) => ({ ...one, ...inbound })),
})

async function followsSpecs(it: DrivenEnvoy): Promise<string> {
  is(await getRaw(direct(it), '/healthz'), 403, 'GET /healthz, before')
  it.edit((spec) => patch(spec, { healthPath: '/healthz' }))
  await eventually('the health path passes', async () => {
    is(await getRaw(direct(it), '/healthz'), 200, 'GET /healthz')
  })
  // what the reader refuses
  it.edit((spec) => patch(spec, { healthPath: '/..' }))
  await eventually('a broken edit is shown', async () => {
    const { proxySpecs } = await it.status()
    demand(proxySpecs[0]?.trouble.includes('healthPath') === true, 'no trouble is shown')
  })
  is(await getRaw(direct(it), '/healthz'), 200, 'GET /healthz, after a broken edit')
  // what only Envoy refuses: somebody listens there
  it.edit((spec) =>
    patch(spec, { healthPath: '/healthz', listen: `127.0.0.1:${it.ports.backend}` }),
  )
  let refusal = ''
  await eventually("Envoy's refusal is shown", async () => {
    const { proxies } = await it.status()
    refusal = proxies[0]?.resources.find(({ kind }) => kind === 'listeners')?.refusal ?? ''
    demand(refusal !== '', 'no refusal is shown')
  })
  is(await getRaw(direct(it), '/ok'), 200, 'GET /ok, after a refusal')
  it.edit((spec) => patch(spec, { listen: `127.0.0.1:${it.ports.inbound}` }))
  await eventually('the refusal is over', async () => {
    const { proxies, proxySpecs } = await it.status()
    demand(proxySpecs[0]?.trouble === '', 'trouble is still shown')
    demand(proxies[0]?.resources.every((one) => one.refusal === '') === true, 'still refused')
  })
  is(await getRaw(direct(it), '/ok'), 200, 'GET /ok, afterwards')
  return refusal
}

async function outlivesAgent(it: DrivenEnvoy): Promise<string> {
  await using traffic = startTraffic(it)
  for (let i = 0; i < 2; i++) {
    const before = traffic.count()
    await it.node.stopAgent()
    await eventually('requests go on', async () => demand(traffic.count() > before + 20, 'none'))
    await it.node.startAgent()
    await eventually('the proxy is back', async () => {
      const { proxies } = await it.status()
      demand(
        proxies.some(({ spiffeId }) => spiffeId === envoyId),
        'not connected',
      )
    })
  }
  await it.apply(allow(['/ok', '/after']))
  await eventually('policies go on', async () => {
    is(await getRaw(direct(it), '/after'), 200, 'GET /after')
  })
  demand(traffic.failures.length === 0, `failed: ${traffic.failures.slice(0, 3).join(', ')}`)
  return `${traffic.count()} requests, none failed`
}

async function honoursDenial(it: DrivenEnvoy): Promise<string> {
  const rules = createClient(DenyRules, it.node.local)
  using live = connectRaw(direct(it))
  is(await live.get('/ok'), 200, 'GET /ok, before')
  const target = { case: 'spiffeId', value: clientId } as const
  const { id } = await rules.addRule({ rule: { target, reason: 'a drill' } })
  const took = await timed('a live connection of a denied identity is refused', async () => {
    const { status } = await live.get('/ok')
    return status === 403 || status === 0
  })
  await rules.removeRule({ id })
  await eventually('it may again', async () => is(await getRaw(direct(it), '/ok'), 200, 'GET /ok'))
  // what was open before is made anew: what is begun meanwhile could be on its way when that ends
  await inTime('what was open is closed', live.closed)
  return `${took} ms`
}

async function takesPlaintext(it: DrivenEnvoy): Promise<void> {
  it.edit((spec) => patch(spec, { mtls: 'permissive' }))
  const plain = { port: it.ports.inbound }
  const forged = { 'x-spiffe-peer-id': clientId }
  await it.apply(`${allow(['/ok'])}---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: open, namespace: shop }
spec: { action: ALLOW, rules: [{ to: [{ operation: { paths: [/open] } }] }] }
`)
  await eventually('plaintext is served', async () => {
    is(await getRaw(plain, '/open', forged), 200, 'GET /open, plaintext')
  })
  const told = valuesOf(it.reached.at(-1)?.headers ?? [], 'x-spiffe-peer-id')
  demand(told.length === 0, `the backend was told of ${told.join()} by a caller without identity`)
  is(await getRaw(plain, '/ok', forged), 403, 'GET /ok, plaintext')
  is(await getRaw(direct(it), '/ok'), 200, 'GET /ok, mutual TLS')
  it.edit((spec) => patch(spec, { mtls: 'strict' }))
  await eventually('plaintext is over', async () =>
    is(await getRaw(plain, '/open'), 0, 'plaintext'),
  )
}

/** By EDS: what the inbound listener serves, the outbound one finds; when it moves, that is followed. */
async function discovers(it: DrivenEnvoy): Promise<void> {
  const before = it.spec()
  const [moved = 0] = await freePorts(1)
  it.edit((spec) => ({
    ...patch(spec, { service: 'shop' }),
    outbound: spec.outbound.map(({ destination: _, ...one }) => ({ ...one, service: 'shop' })),
  }))
  await eventually('the service is found', async () => {
    const { proxies } = await it.status()
    demand(
      proxies[0]?.resources.some(
        ({ kind, takenVersion }) => kind === 'endpoints' && takenVersion !== '',
      ) === true,
      'no endpoints were taken',
    )
    is(await getRaw({ port: it.ports.outbound }, '/ok'), 200, 'GET /ok, by name')
  })
  it.edit((spec) => patch(spec, { listen: `127.0.0.1:${moved}` }))
  await eventually('it is found elsewhere', async () => {
    is(await getRaw({ ...direct(it), port: moved }, '/ok'), 200, 'GET /ok, directly')
    is(await getRaw({ port: it.ports.outbound }, '/ok'), 200, 'GET /ok, by name')
  })
  it.edit(() => before)
  await eventually('it is where it was', async () => {
    is(await getRaw(direct(it), '/ok'), 200, 'GET /ok, directly')
    is(await getRaw({ port: it.ports.outbound }, '/ok'), 200, 'GET /ok, outbound')
  })
}

/** A policy that Envoy cannot enforce, and nobody to ask: closed, and said. */
async function failsClosed(it: DrivenEnvoy): Promise<void> {
  await it.apply(`${allow(['/ok'])}---
apiVersion: castellan.dev/v1
kind: RateLimit
metadata: { name: often, namespace: shop }
spec: { limits: [{ requests: 1000, per: 1s }] }
`)
  await eventually('nobody gets in', async () =>
    is(await getRaw(direct(it), '/ok'), 403, 'GET /ok'),
  )
  const { proxies } = await it.status()
  demand(proxies[0]?.remarks.some((one) => one.includes('nobody gets in')) === true, 'not said')
  await it.apply(allow(['/ok']))
  await eventually('it is over', async () => is(await getRaw(direct(it), '/ok'), 200, 'GET /ok'))
}

const limited = `---
apiVersion: castellan.dev/v1
kind: RateLimit
metadata: { name: often, namespace: shop }
spec: { limits: [{ to: [{ operation: { paths: [/limited] } }], requests: 1, per: 10m }] }
`

/** The agent decides what Envoy cannot: rate limits, and certificates of which Envoy looks at the first name only. */
async function asksAgent(it: DrivenEnvoy, log: (line: string) => void): Promise<void> {
  await it.apply(`${allow(['/ok', '/limited'])}${limited}`)
  await eventually('the agent is asked', async () => {
    const { proxies } = await it.status()
    demand(proxies[0]?.remarks.some((one) => one.includes('the agent decides')) === true, 'no')
    is(await getRaw(direct(it), '/limited'), 200, 'GET /limited')
  })
  is(await getRaw(direct(it), '/limited'), 429, 'GET /limited, once more')
  is(await getRaw(direct(it), '/admin'), 403, 'GET /admin')
  const forged = { 'x-spiffe-peer-id': 'spiffe://example.org/admin' }
  is(await getRaw(direct(it), '/ok', forged), 200, 'GET /ok')
  const told = valuesOf(it.reached.at(-1)?.headers ?? [], 'x-spiffe-peer-id')
  demand(told.join() === clientId, `the backend was told of ${told.join()}`)
  log('ok what Envoy cannot enforce the agent decides')
  log(`ok a denied identity is refused after ${await honoursDenial(it)}`)
  log(`ok the agent is away: ${await handsOver(it)}`)
  await outlivesEnvoy(it)
  log('ok an Envoy that was killed is what it was when it is back')
}

/** Decisions of one agent after the other: what is asked while one hands over waits for the next. */
async function handsOver(it: DrivenEnvoy): Promise<string> {
  await using traffic = startTraffic(it)
  for (let i = 0; i < 3; i++) {
    const before = traffic.count()
    await it.node.restartAgent()
    await eventually('requests go on', async () => demand(traffic.count() > before + 20, 'none'))
  }
  const { failures, count } = traffic
  // who asks when nobody is there is refused, and what is refused is no mistake
  const wrong = failures.filter((it) => !it.startsWith('503'))
  demand(wrong.length === 0, `failed: ${wrong.slice(0, 3).join(', ')}`)
  return `${count()} requests, ${failures.length} refused`
}

/** Envoy is gone without a word: its successor is told everything anew. */
async function outlivesEnvoy(it: DrivenEnvoy): Promise<void> {
  process.kill(it.envoy.pid, 'SIGKILL')
  await it.startEnvoy()
  await eventually('the next Envoy serves', async () => {
    is(await getRaw(direct(it), '/ok'), 200, 'GET /ok, after a kill')
  })
  is(await getRaw(direct(it), '/admin'), 403, 'GET /admin, after a kill')
}

/** Bytes: decided once per connection, by the agent, about the port of the workload. */
async function decidesConnections(it: DrivenEnvoy): Promise<void> {
  const { identity, inbound, outbound } = it.spec()
  it.edit(() => ({
    ...{ identity, outbound },
    inbound: inbound.map(({ healthPath: _, ...one }) => ({ ...one, protocol: 'tcp' })),
  }))
  await it.apply(tcpRules(it.ports.backend))
  await eventually('a connection is let through', async () => {
    is(await getRaw(direct(it), '/bytes'), 200, 'GET /bytes')
  })
  await it.apply(tcpRules(it.ports.inbound))
  await eventually('a connection to another port is not', async () => {
    is(await getRaw(direct(it), '/bytes'), 0, 'GET /bytes')
  })
}

async function walk(it: DrivenEnvoy, log: (line: string) => void): Promise<void> {
  await serves(it)
  log('ok serves, decides, names both sides')
  log(`ok a policy holds on a live connection after ${await followsPolicies(it)}`)
  log(`ok edits of the spec, a broken one, one that Envoy refuses: ${await followsSpecs(it)}`)
  log(`ok a denied identity is refused on a live connection after ${await honoursDenial(it)}`)
  log(`ok the agent is away twice: ${await outlivesAgent(it)}`)
  await discovers(it)
  log('ok a service is found, also where it has moved to')
  await takesPlaintext(it)
  log('ok plaintext has no identity, whatever it says')
  await failsClosed(it)
  log('ok what Envoy cannot enforce and nobody can be asked about lets nobody in')
}

async function interop({ log }: Surroundings): Promise<Outcome> {
  const envoy = await findEnvoy(log)
  if (envoy.kind === 'missing') return { kind: 'skipped', reason: envoy.reason }
  for (const delta of [true, false]) {
    const name = delta ? 'delta' : 'state of the world'
    await using it = await startDrivenEnvoy({ envoy: envoy.path, delta })
    await walk(it, (line) => log(`${name}: ${line}`))
  }
  const agent = {
    decisions: { socket: join(mkdtempSync(join(tmpdir(), 'castellan-authz-')), 's') },
  }
  await using asking = await startDrivenEnvoy({ envoy: envoy.path, delta: true, agent })
  const tell = (line: string) => log(`asking: ${line}`)
  await asksAgent(asking, tell)
  await decidesConnections(asking)
  tell('ok connections are decided, about the port of the workload')
  await greets(asking)
  tell('ok a workload hears of nobody before that was decided, and may speak first')
  return { kind: 'ok' }
}

export const envoy: Interop = { name: 'envoy', run: interop }
