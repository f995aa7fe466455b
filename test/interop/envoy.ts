// A real Envoy that our agent drives by a proxy spec: by both variants of ADS.

import { clientId, type DrivenEnvoy, envoyId, startDrivenEnvoy } from '../support/driven-envoy.ts'
import { findEnvoy } from '../support/envoy.ts'
import { getRaw, type RawAnswer } from '../support/raw-http1.ts'
import { eventually } from './eventually.ts'
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

async function walk(it: DrivenEnvoy, log: (line: string) => void): Promise<void> {
  await serves(it)
  log('ok serves, decides, names both sides')
}

async function run({ log }: Surroundings): Promise<Outcome> {
  const envoy = await findEnvoy(log)
  if (envoy.kind === 'missing') return { kind: 'skipped', reason: envoy.reason }
  for (const delta of [true, false]) {
    const name = delta ? 'delta' : 'state of the world'
    await using it = await startDrivenEnvoy({ envoy: envoy.path, delta })
    await walk(it, (line) => log(`${name}: ${line}`))
  }
  return { kind: 'ok' }
}

export const envoy: Interop = { name: 'envoy', run }
