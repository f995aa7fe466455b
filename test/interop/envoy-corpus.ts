// The corpus of adversarial requests, as bytes, against a real Envoy that our agent drives: it lets nothing pass that
// the strict profile denies, where it asks the agent and where it decides alone.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { makeDevCa } from '../../certs-dev/authority.ts'
import { bundleOf } from '../../spiffe/bundle.ts'
import { parseTrustDomain } from '../../spiffe/id.ts'
import { type CorpusCase, corpusFixtures, corpusProblem } from '../support/corpus.ts'
import { type DrivenEnvoy, startDrivenEnvoy } from '../support/driven-envoy.ts'
import { findEnvoy } from '../support/envoy.ts'
import { trustDomain } from '../support/node.ts'
import { type Presented, show } from '../support/odd-certificates.ts'
import type { Reached } from '../support/reached.ts'
import { differences } from './envoy-corpus-differences.ts'
import {
  type Entered,
  enter,
  mayBeForwarded,
  type Plan,
  planOf,
  type Signers,
} from './envoy-corpus-fixtures.ts'
import { askBytes, askFields } from './envoy-corpus-requests.ts'
import type { Interop, Outcome, Surroundings } from './interop.ts'

const hour = 3_600_000

interface Scene {
  readonly it: DrivenEnvoy
  readonly signers: Signers
  readonly svids: Map<string, NonNullable<Presented>>
}

interface Answered {
  readonly status: number
  readonly reached: readonly Reached[]
}

async function ask({ it, svids }: Scene, plan: Plan): Promise<Answered> {
  const { id, signer, from, bytes, h2 = [] } = plan
  const svid = svids.get(id) ?? show(signer, { id })
  svids.set(id, svid)
  const door = { port: it.ports.inbound, svid, roots: it.roots(), from }
  const before = it.reached.length
  const status = bytes === undefined ? await askFields(door, h2) : await askBytes(door, bytes)
  return { status, reached: it.reached.slice(before) }
}

interface Counts {
  asked: number
  allowed: number
  /** by Envoy, which asked nobody */
  alone: number
  readonly wrong: string[]
  /** ids of the table that nothing was found for */
  readonly unused: Set<string>
  /** why cases were not asked, and how many */
  readonly left: Map<string, number>
}

/** What is wrong with an answer; undefined when nothing is. */
function problemOf(each: CorpusCase, plan: Plan, entered: Entered, { reached }: Answered) {
  const decisions = [each.expect.strict?.decision ?? []].flat()
  if (reached.length > 1) return 'more than one request'
  if (reached.length === 0) return decisions.every((it) => it === 'allow') ? 'refused' : undefined
  if (!decisions.includes('allow')) return 'ALLOWED'
  return reached.every((it) => mayBeForwarded(entered, plan, it))
    ? undefined
    : 'ALLOWED, and denied as it was forwarded'
}

async function compareCase(scene: Scene, entered: Entered, each: CorpusCase, counts: Counts) {
  if (each.expect.strict === undefined) return
  const plan = planOf(each, entered, scene.signers)
  if (typeof plan === 'string') {
    counts.left.set(plan, (counts.left.get(plan) ?? 0) + 1)
    return
  }
  const answer = await ask(scene, plan)
  counts.asked++
  if (answer.reached.length > 0) counts.allowed++
  if (entered.isAlone) counts.alone++
  const problem = problemOf(each, plan, entered, answer)
  if (problem === undefined) return
  const isExplained = problem === 'refused' && differences[each.id] !== undefined
  if (isExplained) counts.unused.delete(each.id)
  const shown = JSON.stringify({ ...answer, wanted: each.expect.strict, why: each.why })
  if (!isExplained) counts.wrong.push(`${entered.fixture.name} ${each.id}: ${problem}: ${shown}`)
}

async function compareCorpus(scene: Scene): Promise<Counts> {
  const counts: Counts = {
    ...{ asked: 0, allowed: 0, alone: 0, wrong: [], left: new Map() },
    unused: new Set(Object.keys(differences)),
  }
  for (const fixture of corpusFixtures()) {
    const entered = await enter(scene.it, fixture)
    for (const each of fixture.cases) await compareCase(scene, entered, each, counts)
  }
  for (const id of counts.unused) counts.wrong.push(`${id}: is in the table, and does not differ`)
  return counts
}

function tell({ asked, allowed, alone, left }: Counts): string {
  const reasons = [...left].map(([why, count]) => `${count} ${why}`).join(', ')
  return `${asked} asked, ${allowed} let through, ${alone} decided by Envoy alone; left out: ${reasons}`
}

async function run({ log }: Surroundings): Promise<Outcome> {
  const envoy = await findEnvoy(log)
  if (envoy.kind === 'missing') return { kind: 'skipped', reason: envoy.reason }
  const problem = corpusProblem()
  if (problem !== undefined) return { kind: 'skipped', reason: problem }
  using stack = new DisposableStack()
  const folder = mkdtempSync(join(tmpdir(), 'castellan-corpus-'))
  stack.defer(() => rmSync(folder, { recursive: true, force: true }))
  const life = { notBefore: Date.now() - hour, notAfter: Date.now() + 24 * hour }
  const other = makeDevCa({ name: 'othertd', ...life })
  const federated = [bundleOf(parseTrustDomain('othertd'), [other.certificate])]
  // whoever is believed about the client in the fixtures that look at its address
  const trusted = { trustedHops: 1, trustedProxies: ['127.100.0.0/24'] }
  const agent = { decisions: { socket: join(folder, 's'), ...trusted } }
  const modes = { asked: { federated, agent }, native: { agent } } as const
  const wrong: string[] = []
  for (const mode of ['asked', 'native'] as const) {
    await using it = await startDrivenEnvoy({ envoy: envoy.path, delta: true, ...modes[mode] })
    const own = it.node.signer
    const signers = new Map([trustDomain, 'td'].map((name) => [name, own])).set('othertd', other)
    const counts = await compareCorpus({ it, signers, svids: new Map() })
    log(`${mode}: ${tell(counts)}`)
    wrong.push(...counts.wrong.map((line) => `${mode}: ${line}`))
  }
  for (const line of wrong) log(line)
  if (wrong.length > 0) throw new Error(`${wrong.length} differ`)
  return { kind: 'ok' }
}

export const envoyCorpus: Interop = { name: 'envoy-corpus', run }
