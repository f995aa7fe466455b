// What the scenes with a killed agent have in common: who may do what, requests that say whether that is so, and
// what is never to happen.
import { systemClock } from '../../runtime/clock.ts'
import { clientId, type DrivenEnvoy, envoyId } from '../support/driven-envoy.ts'
import type { KillableNode } from '../support/killable-node.ts'
import { getRaw, type RawOptions } from '../support/raw-http1.ts'
import { eventually } from './eventually.ts'
import { type Answer, type Lane, type SteadyTraffic, startSteadyTraffic } from './steady-traffic.ts'

export type Scene = DrivenEnvoy<KillableNode>

export function demand(isSo: boolean, what: string): asserts isSo {
  if (!isSo) throw new Error(what)
}

const principals = [clientId, envoyId].map((it) => JSON.stringify(it.slice('spiffe://'.length)))

/** `/ok` and these paths are for both identities; `/ok/secret` for nobody, `/admin` for nobody either. */
export const policies = (...paths: readonly string[]) => `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: web, namespace: shop }
spec:
  action: ALLOW
  rules:
    - from: [{ source: { principals: [${principals.join(', ')}] } }]
      to: [{ operation: { methods: [GET], paths: ${JSON.stringify(['/ok', '/ok/*', ...paths])} } }]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: secret, namespace: shop }
spec: { action: DENY, rules: [{ to: [{ operation: { paths: [/ok/secret, /ok/secret/] } }] }] }
`

const denied = new Set(['/admin', '/ok/secret'])

/** With the certificate that the client has now: an agent that is dead gives no other. */
export function doorsOf(it: Scene): { readonly direct: RawOptions; readonly outbound: RawOptions } {
  const direct = { port: it.ports.inbound, svid: it.svid(), roots: it.roots() }
  return { direct, outbound: { port: it.ports.outbound } }
}

/** A hundred requests a second, a third of them denied; by the outbound listener too, which sends as Envoy. */
export function startTraffic(it: Scene): SteadyTraffic {
  const { direct, outbound } = doorsOf(it)
  const lanes: Lane[] = [
    { door: direct, path: '/ok', rate: 60 },
    { door: direct, path: '/admin', rate: 15 },
    { door: direct, path: '/ok/secret', rate: 15 },
    { door: outbound, path: '/admin', rate: 10 },
  ]
  return startSteadyTraffic(lanes)
}

export async function status(door: RawOptions, path: string): Promise<number> {
  return (await getRaw(door, path)).status
}

export async function answers(door: RawOptions, path: string, wanted: number): Promise<void> {
  const { status: got, body } = await getRaw(door, path)
  demand(got === wanted, `GET ${path}: ${got} ${body}, not ${wanted}`)
}

/** Milliseconds until it succeeds. */
export async function timed(what: string, attempt: () => Promise<void>): Promise<number> {
  const began = systemClock.monotonic()
  await eventually(what, attempt)
  return Math.round(systemClock.monotonic() - began)
}

/** What was allowed by the policies before is not, something else is: Envoy is driven. */
export async function followsPolicies(it: Scene, path: string, before: string): Promise<number> {
  const { direct } = doorsOf(it)
  await it.apply(policies(path))
  return await timed(`policies reach Envoy: ${path}`, async () => {
    await answers(direct, path, 200)
    await answers(direct, before, 403)
    await answers(direct, '/admin', 403)
  })
}

export async function hearsMore({ answers: all }: SteadyTraffic, count: number): Promise<void> {
  const enough = all.length + count
  await eventually('requests are answered', async () =>
    demand(all.length >= enough, `${all.length} answers`),
  )
}

export const ofDenied = (all: readonly Answer[]) => all.filter(({ path }) => denied.has(path))
export const ofAllowed = (all: readonly Answer[]) => all.filter(({ path }) => !denied.has(path))

/** As `403 RBAC: access denied x 12`. */
export function counted(all: readonly Answer[]): string {
  const counts = new Map<string, number>()
  for (const { path, status: got, body } of all) {
    const key = `${path} ${got} ${got === 200 ? '' : body.trim()}`.trim()
    counts.set(key, (counts.get(key) ?? 0) + 1)
  }
  return [...counts].map(([key, count]) => `${key} x ${count}`).join(', ')
}

/** Every answer to what policies deny is one of these; the workload has not heard of it either. */
export function demandDenied(it: Scene, all: readonly Answer[], wanted: readonly number[]): void {
  const wrong = ofDenied(all).filter(({ status: got }) => !wanted.includes(got))
  demand(wrong.length === 0, `denied, and answered: ${counted(wrong)}`)
  const passed = it.reached.filter(({ target }) => denied.has(target))
  demand(passed.length === 0, `${passed.length} requests passed that are denied`)
}
