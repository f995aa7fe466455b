// Which client certificates are somebody to a real Envoy that our agent drives: where it decides alone, and where it
// asks the agent because it believes another trust domain as well (proxies.md §7.2).
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type DevCa, makeDevCa } from '../../certs-dev/authority.ts'
import { bundleOf, type X509Bundle } from '../../spiffe/bundle.ts'
import { parseTrustDomain } from '../../spiffe/id.ts'
import { clientId, type DrivenEnvoy, startDrivenEnvoy } from '../support/driven-envoy.ts'
import { findEnvoy } from '../support/envoy.ts'
import { clientCertificates, type Presented } from '../support/odd-certificates.ts'
import { getRaw } from '../support/raw-http1.ts'
import { deniesListed } from './envoy-certificates-denied.ts'
import { refusesSessions } from './envoy-certificates-resumed.ts'
import { type Outcome, type Row, table } from './envoy-certificates-table.ts'
import { eventually } from './eventually.ts'
import type { Interop, Outcome as Result, Surroundings } from './interop.ts'

const partnerId = 'spiffe://partner.test/ns/shop/sa/web'
const told: Readonly<Record<string, Outcome>> = { [clientId]: 'client', [partnerId]: 'partner' }
const hour = 3_600_000

/** Whoever is somebody may do everything: what is refused is refused for its certificate. */
export const everybody = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: web, namespace: shop }
spec: { action: ALLOW, rules: [{}] }
`

const claims = {
  'x-spiffe-peer-id': 'spiffe://example.org/admin',
  'x-forwarded-client-cert': 'URI=spiffe://example.org/admin',
}

interface Asked {
  readonly status: number
  readonly isReached: boolean
  /** every value of the fields that say who calls, in what reached the backend */
  readonly identities: readonly string[]
}

async function ask(it: DrivenEnvoy, svid: Presented, path: string): Promise<Asked> {
  const before = it.reached.length
  const door = { port: it.ports.inbound, svid, roots: it.roots() }
  const { status } = await getRaw(door, path, claims)
  const reached = it.reached.slice(before)
  const identities = reached.flatMap(({ headers }) =>
    headers.filter((_, i) => i % 2 === 1 && headers[i - 1]?.toLowerCase() === 'x-spiffe-peer-id'),
  )
  return { status, isReached: reached.length > 0, identities }
}

/** What it is, or in words what it should not be. */
function outcomeOf({ status, isReached, identities }: Asked): Outcome | string {
  if (isReached) {
    const outcome = told[identities.join()]
    return status === 200 && outcome !== undefined ? outcome : `${status}, told ${identities}`
  }
  if (status === 0) return 'tls'
  return status === 403 ? 403 : `${status}, and the backend was not reached`
}

/** The health path, which passes without a decision: the workload hears of nobody there. */
async function healthProblem(it: DrivenEnvoy, svid: Presented): Promise<string | undefined> {
  const { isReached } = await ask(it, svid, '/healthz')
  if (!isReached) return undefined
  const { headers = [] } = it.reached.at(-1) ?? {}
  const names = headers.filter((_, i) => i % 2 === 0).map((name) => name.toLowerCase())
  const found = names.filter((name) => name in claims)
  return found.length === 0 ? undefined : `at the health path the workload is told ${found}`
}

async function walkTable(it: DrivenEnvoy, partner: DevCa, mode: keyof Row): Promise<string> {
  const own = it.node.signer
  const certificates = clientCertificates({ own, partner, id: clientId, partnerId })
  await eventually('everybody may', async () => {
    const outcome = outcomeOf(await ask(it, certificates.good, '/ok'))
    if (outcome !== 'client') throw new Error(`${outcome}`)
  })
  const wrong: string[] = []
  const counts: Record<string, number> = {}
  for (const [name, row] of Object.entries(table)) {
    const svid = Object.entries(certificates).find(([it]) => it === name)?.[1]
    const got = outcomeOf(await ask(it, svid, '/ok'))
    counts[got] = (counts[got] ?? 0) + 1
    if (got !== row[mode]) wrong.push(`${name}: ${got} instead of ${row[mode]}`)
    const problem = await healthProblem(it, svid)
    if (problem !== undefined) wrong.push(`${name}: ${problem}`)
  }
  if (wrong.length > 0) throw new Error(wrong.join('; '))
  return JSON.stringify(counts)
}

const partnerOf = (name: string) =>
  makeDevCa({ name, notBefore: Date.now() - hour, notAfter: Date.now() + 24 * hour })
const bundleWith = ({ certificate }: DevCa): X509Bundle =>
  bundleOf(parseTrustDomain('partner.test'), [certificate])

/** Nobody to ask about the certificates of another trust domain: nobody gets in. */
async function closes(it: DrivenEnvoy, partner: DevCa): Promise<void> {
  const { good } = clientCertificates({ own: it.node.signer, partner, id: clientId, partnerId })
  await eventually('it says so', async () => {
    const { proxies } = await it.status()
    if (proxies[0]?.remarks.some((one) => one.includes('nobody gets in')) !== true)
      throw new Error('it does not')
  })
  for (const svid of [good, it.svid()]) {
    const outcome = outcomeOf(await ask(it, svid, '/ok'))
    if (outcome !== 403) throw new Error(`somebody got in: ${outcome}`)
  }
}

async function run({ log }: Surroundings): Promise<Result> {
  const envoy = await findEnvoy(log)
  if (envoy.kind === 'missing') return { kind: 'skipped', reason: envoy.reason }
  using stack = new DisposableStack()
  const folder = mkdtempSync(join(tmpdir(), 'castellan-certificates-'))
  stack.defer(() => rmSync(folder, { recursive: true, force: true }))
  const partner = partnerOf('the partner')
  const federated = [bundleWith(partner)]
  const common = { envoy: envoy.path, delta: true, inbound: { healthPath: '/healthz' } }
  {
    await using it = await startDrivenEnvoy(common)
    await it.apply(everybody)
    log(`ok Envoy alone: ${await walkTable(it, partner, 'native')}`)
    await deniesListed(it, { log: (line) => log(`Envoy alone: ${line}`) })
  }
  {
    const agent = { decisions: { socket: join(folder, 'authz.sock') } }
    await using it = await startDrivenEnvoy({ ...common, federated, agent })
    await it.apply(everybody)
    log(`ok the agent decides: ${await walkTable(it, partner, 'asked')}`)
    const successor = bundleWith(partnerOf('the next one of the partner'))
    await refusesSessions(it, { partner, partnerId, successor })
    log('ok no session is resumed, and a connection of before is refused once its CA is gone')
    await deniesListed(it, { log: (line) => log(`the agent decides: ${line}`) })
  }
  await using it = await startDrivenEnvoy({ ...common, federated })
  await it.apply(everybody)
  await closes(it, partner)
  log('ok federated and nobody to ask: nobody gets in')
  return { kind: 'ok' }
}

export const envoyCertificates: Interop = { name: 'envoy-certificates', run }
