// The corpus of adversarial requests, as bytes, against a real Envoy that our agent drives: it lets nothing pass that
// the strict profile denies, where it asks the agent and where it decides alone.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createClient } from '@connectrpc/connect'
import { parse, parseAllDocuments } from 'yaml'
import { type DevCa, makeDevCa } from '../../certs-dev/authority.ts'
import { destinationOf, type RawHttp } from '../../policies/attributes/request.ts'
import { compile, type PolicySet } from '../../policies/compile.ts'
import { evaluateHttp } from '../../policies/evaluate.ts'
import { meshDocument } from '../../policies/language/mesh.ts'
import { excuse } from '../../policies/language/metadata.ts'
import { readPolicies } from '../../policies/language/read.ts'
import { lintRules } from '../../policies/lint.ts'
import { Policies } from '../../proto/gen/castellan/policy/v1/policies_pb.js'
import { systemClock } from '../../runtime/clock.ts'
import { bundleOf } from '../../spiffe/bundle.ts'
import { parseSpiffeId, parseTrustDomain } from '../../spiffe/id.ts'
import { type CorpusCase, corpusFixtures, corpusProblem, type Fixture } from '../support/corpus.ts'
import { type DrivenEnvoy, envoyId, startDrivenEnvoy } from '../support/driven-envoy.ts'
import { findEnvoy } from '../support/envoy.ts'
import { type Presented, show } from '../support/odd-certificates.ts'
import { getRaw } from '../support/raw-http1.ts'
import type { Reached } from '../support/reached.ts'
import { differences, type Mode } from './envoy-corpus-differences.ts'
import { askBytes, askFields, bytesOf, type Door, onLoopback } from './envoy-corpus-requests.ts'
import { eventually } from './eventually.ts'
import type { Interop, Outcome, Surroundings } from './interop.ts'

const hour = 3_600_000
/** What stands before the client in the fixtures that look at the address of one behind a proxy. */
const proxies = '127.100.0.0/24'

/** The corpus' policies as those of this node; what a linter says of them is the point of them. */
function asHere(text: string): string {
  const here = onLoopback(text).replace(/(?<![\w.-])td\//g, 'example.org/')
  const documents = parseAllDocuments(here).filter((it) => it.contents !== null)
  for (const it of documents) {
    it.setIn(['metadata', 'namespace'], 'shop')
    it.setIn(['metadata', 'annotations', excuse], lintRules.map(({ name }) => name).join())
  }
  return documents.join('---\n')
}

interface Scene {
  readonly it: DrivenEnvoy
  readonly mode: Mode
  /** by trust domain */
  readonly signers: ReadonlyMap<string, DevCa>
  readonly svids: Map<string, NonNullable<Presented>>
}

interface Entered {
  readonly fixture: Fixture
  readonly mesh: ReturnType<typeof meshDocument.parse>
  readonly set: PolicySet
}

/** Resolves once the policies of a fixture, and the backend that it speaks of, are in force. */
async function enter({ it }: Scene, fixture: Fixture): Promise<Entered> {
  const read = (name: string) => readFileSync(fixture.file(name), 'utf8')
  const mesh = meshDocument.parse(parse(onLoopback(read('mesh.yaml'))))
  const text = asHere(read('policies.yaml'))
  const healthPath = `/corpus-${fixture.name}`
  it.edit((spec) => ({
    ...spec,
    inbound: spec.inbound.map(({ backend: _, ...one }) => {
      return {
        ...one,
        healthPath,
        ...(mesh.backend === 'rfc3986' ? {} : { backend: mesh.backend }),
      }
    }),
  }))
  const files = [{ name: 'corpus.yaml', text }]
  const { version } = await createClient(Policies, it.node.local).applyPolicies({ files })
  const door = { port: it.ports.inbound, svid: it.svid(), roots: it.roots() }
  await eventually(`${fixture.name} is in force`, async () => {
    const { proxies: all, policyVersion } = await it.status()
    const [proxy] = all
    if (proxy?.policyVersion !== version || policyVersion !== version) throw new Error('not yet')
    const { status } = await getRaw(door, healthPath)
    if (status !== 200) throw new Error(`the spec is not: ${status}`)
  })
  const set = compile(readPolicies([{ name: 'corpus.yaml', text }]), {
    mesh: { profile: 'strict', ...mesh, trustDomain: parseTrustDomain('example.org') },
  })
  return { fixture, mesh, set }
}

/** Why a case cannot be had on a socket; else how. */
function plan({ signers, mode }: Scene, { request }: CorpusCase, { mesh }: Entered) {
  const { remoteIp, source: { principal, ip = '' } = {}, h2 } = request
  if (principal === undefined) return 'no identity, and mutual TLS demands one'
  if (mode === 'native' && mesh.trustedHops > 0) return 'the driver takes no proxies in front'
  const isBehind = mesh.trustedHops > 0 && ip.startsWith('198.51.100.')
  if (remoteIp !== undefined && !isBehind) return 'Envoy derives the remote address itself'
  const remote = remoteIp === undefined ? undefined : onLoopback(remoteIp)
  const bytes = bytesOf(request, remote)
  if (bytes === undefined && h2 === undefined) return 'a connection, no request'
  const id = principal.replace(/^spiffe:\/\/td\//, 'spiffe://example.org/')
  const signer = signers.get(/^spiffe:\/\/([^/]*)/.exec(id)?.[1]?.toLowerCase() ?? '')
  if (signer === undefined) return `nobody signs ${id}`
  return { id, signer, from: onLoopback(ip), bytes, h2 }
}

type Plan = Exclude<ReturnType<typeof plan>, string>

async function ask({ it, svids }: Scene, { id, signer, from, bytes, h2 = [] }: Plan) {
  const svid = svids.get(id) ?? show(signer, { id })
  svids.set(id, svid)
  const door: Door = { port: it.ports.inbound, svid, roots: it.roots(), from }
  const before = it.reached.length
  const status = bytes === undefined ? await askFields(door, h2) : await askBytes(door, bytes)
  return { status, reached: it.reached.slice(before) }
}

/** What the engine says of a request as the backend has seen it. */
function isAllowedAsSeen({ set }: Entered, { id }: Plan, it: DrivenEnvoy, seen: Reached): boolean {
  const { method, target, headers } = seen
  const raw: RawHttp = { method, target, host: undefined, headers }
  const destination = destinationOf(parseSpiffeId(envoyId), { port: it.ports.backend, labels: {} })
  const connected = { source: parseSpiffeId(id), sourceIp: undefined, destination, sni: undefined }
  const result = evaluateHttp(set, connected, { raw, now: systemClock.now() })
  return result.kind === 'decided' && result.decision.allow
}

interface Counts {
  asked: number
  allowed: number
  readonly wrong: string[]
  readonly unused: Set<string>
  readonly left: Map<string, number>
}

async function compareCase(scene: Scene, entered: Entered, each: CorpusCase, counts: Counts) {
  const wanted = each.expect.strict
  if (wanted === undefined) return
  const planned = plan(scene, each, entered)
  if (typeof planned === 'string') {
    counts.left.set(planned, (counts.left.get(planned) ?? 0) + 1)
    return
  }
  const { status, reached } = await ask(scene, planned)
  counts.asked++
  if (reached.length > 0) counts.allowed++
  const decisions = [wanted.decision].flat()
  const isAsWanted = decisions.includes('allow')
    ? reached.length > 0 || decisions.length > 1
    : reached.length === 0
  const tell = (what: string) =>
    counts.wrong.push(
      `${entered.fixture.name} ${each.id}: ${what} (${status}, wanted ${decisions}; ${each.why}) ${JSON.stringify(reached)}`,
    )
  if (reached.length > 1) tell('more than one request')
  if (isAsWanted) return
  const difference = differences[scene.mode][each.id]
  counts.unused.delete(each.id)
  if (reached.length === 0) {
    if (difference?.kind !== 'refused') tell('refused')
    return
  }
  if (difference?.kind !== 'rewritten') tell('ALLOWED')
  else if (!reached.every((it) => isAllowedAsSeen(entered, planned, scene.it, it))) {
    tell('ALLOWED, and denied as it was forwarded')
  }
}

async function compareCorpus(scene: Scene): Promise<Counts> {
  const counts: Counts = {
    ...{ asked: 0, allowed: 0, wrong: [], left: new Map() },
    unused: new Set(Object.keys(differences[scene.mode])),
  }
  for (const fixture of corpusFixtures()) {
    const entered = await enter(scene, fixture)
    const { proxies: all } = await scene.it.status()
    const isClosed = all.some(({ remarks }) => remarks.some((it) => it.includes('nobody gets in')))
    for (const each of fixture.cases) {
      if (isClosed) {
        const planned = plan(scene, each, entered)
        if (typeof planned === 'string') continue
        const { reached } = await ask(scene, planned)
        if (reached.length > 0) counts.wrong.push(`${fixture.name} ${each.id}: got in`)
        counts.left.set('nobody gets in', (counts.left.get('nobody gets in') ?? 0) + 1)
        counts.unused.delete(each.id)
        continue
      }
      await compareCase(scene, entered, each, counts)
    }
  }
  for (const id of counts.unused) counts.wrong.push(`${id}: stands in the table for nothing`)
  return counts
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
  const decisions = { socket: join(folder, 's'), trustedHops: 1, trustedProxies: [proxies] }
  const modes = { asked: { federated, agent: { decisions } }, native: {} } as const
  const wrong: string[] = []
  for (const mode of ['asked', 'native'] as const) {
    await using it = await startDrivenEnvoy({ envoy: envoy.path, delta: true, ...modes[mode] })
    const signers = new Map([
      ['example.org', it.node.signer],
      ['td', it.node.signer],
      ['othertd', other],
    ])
    const counts = await compareCorpus({ it, mode, signers, svids: new Map() })
    const left = [...counts.left].map(([why, count]) => `${count} ${why}`).join(', ')
    log(`${mode}: ${counts.asked} asked, ${counts.allowed} let through; left out: ${left}`)
    wrong.push(...counts.wrong.map((line) => `${mode}: ${line}`))
  }
  for (const line of wrong) log(line)
  if (wrong.length > 0) throw new Error(`${wrong.length} differ`)
  return { kind: 'ok' }
}

export const envoyCorpus: Interop = { name: 'envoy-corpus', run }
