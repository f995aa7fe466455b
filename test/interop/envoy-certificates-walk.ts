// One request per client certificate at a driven Envoy: what the client gets, and what the workload hears of it.
import type { DevCa } from '../../certs-dev/authority.ts'
import { corpusCertificates, leafKey } from '../support/corpus-certificates.ts'
import { clientId, type DrivenEnvoy } from '../support/driven-envoy.ts'
import { clientCertificates, type Presented, show } from '../support/odd-certificates.ts'
import { getRaw } from '../support/raw-http1.ts'
import { type Outcome, type Row, table } from './envoy-certificates-table.ts'
import { eventually } from './eventually.ts'

export const partnerId = 'spiffe://partner.test/ns/shop/sa/web'
const told: Readonly<Record<string, Outcome>> = { [clientId]: 'client', [partnerId]: 'partner' }

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

export async function ask(it: DrivenEnvoy, svid: Presented, path: string): Promise<Asked> {
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
export function outcomeOf({ status, isReached, identities }: Asked): Outcome | string {
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

type Line = readonly [name: string, svid: Presented, row: Row]

function rowsFor(it: DrivenEnvoy, partner: DevCa): readonly Line[] {
  const signers = { own: it.node.signer, partner, id: clientId, partnerId }
  const certificates: Readonly<Record<string, Presented>> = clientCertificates(signers)
  return Object.entries(table).map(([name, row]) => [name, certificates[name], row])
}

async function untilGoodIs(it: DrivenEnvoy, isSo: (asked: Asked) => boolean): Promise<void> {
  await eventually('everybody may', async () => {
    const asked = await ask(it, show(it.node.signer, { id: clientId }), '/ok')
    if (!isSo(asked)) throw new Error(JSON.stringify(asked))
  })
}

/** Counts of outcomes; throws naming each row whose outcome is another one. */
export async function walkTable(
  it: DrivenEnvoy,
  partner: DevCa,
  mode: keyof Row,
): Promise<Readonly<Record<string, number>>> {
  await untilGoodIs(it, (asked) => outcomeOf(asked) === 'client')
  const wrong: string[] = []
  const counts: Record<string, number> = {}
  for (const [name, svid, row] of rowsFor(it, partner)) {
    const got = outcomeOf(await ask(it, svid, '/ok'))
    counts[got] = (counts[got] ?? 0) + 1
    if (got !== row[mode]) wrong.push(`${name}: ${got} instead of ${row[mode]}`)
    const problem = await healthProblem(it, svid)
    if (problem !== undefined) wrong.push(`${name}: ${problem}`)
  }
  if (wrong.length > 0) throw new Error(wrong.join('; '))
  return counts
}

// Envoy sends the leaf alone, and nothing says the rest of the chain where there are no requests
const leafAlone: ReadonlySet<string> = new Set([
  'under an intermediate',
  'federated, under an intermediate',
])

/** The same over connections whose bytes nobody reads: a refused one is closed. */
export async function walkTcp(it: DrivenEnvoy, partner: DevCa): Promise<void> {
  const http = it.spec()
  it.edit((spec) => ({
    ...spec,
    inbound: spec.inbound.map(({ healthPath: _, ...one }) => ({ ...one, protocol: 'tcp' })),
  }))
  const claim = claims['x-spiffe-peer-id']
  await untilGoodIs(it, ({ identities }) => identities.join() === claim)
  const wrong: string[] = []
  for (const [name, svid, { asked: wanted }] of rowsFor(it, partner)) {
    const { isReached } = await ask(it, svid, '/ok')
    const isWanted = (wanted === 'client' || wanted === 'partner') && !leafAlone.has(name)
    if (isReached !== isWanted) wrong.push(`${name}: ${isReached ? 'let in' : 'refused'}`)
  }
  it.edit(() => http)
  await untilGoodIs(it, (asked) => outcomeOf(asked) === 'client')
  if (wrong.length > 0) throw new Error(wrong.join('; '))
}

/** Those of the corpus, whose trust domains are believed beside our own. */
export async function walkCorpus(it: DrivenEnvoy): Promise<void> {
  for (const { file, chain, expect, reason } of corpusCertificates) {
    const asked = await ask(it, { chain, key: leafKey() }, '/ok')
    const isSomebody = expect === 'accept'
    const isTold = /^spiffe:\/\/(?:other)?td\/ns\/\w+\/sa\/\w+$/.test(asked.identities.join())
    if (asked.isReached === isSomebody && isTold === isSomebody) continue
    throw new Error(`${file}: ${expect}, ${reason}: ${JSON.stringify(asked)}`)
  }
}
