// A real Envoy that decides by lowered policies: the corpus, of whose requests it may allow only what the engine
// allows; and odd requests by the hundred, to which the interpreter that the tests believe has to say the same.
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { rbacFilters } from '../../agent/proxies/envoy/rbac.ts'
import { readMesh, readPolicyTexts } from '../../cli/policy/files.ts'
import { createTally } from '../../decisions/tally.ts'
import { isRejection, type RawHttp } from '../../policies/attributes/request.ts'
import { compile, type PolicySet } from '../../policies/compile.ts'
import { evaluateHttp } from '../../policies/evaluate.ts'
import { defaultMesh, type Mesh } from '../../policies/language/mesh.ts'
import { readPolicies } from '../../policies/language/read.ts'
import { type Lowered, lower } from '../../policies/lower/lower.ts'
import { defaultLimits } from '../../proxy/limits.ts'
import { createByteReader } from '../../proxy/read-bytes.ts'
import { systemClock } from '../../runtime/clock.ts'
import { createLog } from '../../runtime/log.ts'
import { bundleToPem } from '../../spiffe/bundle.ts'
import { toPem } from '../../spiffe/pem.ts'
import { findEnvoy, startEnvoy } from '../support/envoy.ts'
import { headerText, rbacVerdict } from '../support/envoy-rbac.ts'
import { asEnvoySees, type Sent } from '../support/envoy-request.ts'
import { makeTestAuthority } from '../support/mesh.ts'
import { freePorts } from '../support/ports.ts'
import { type Listener, rbacBootstrap } from './envoy-rbac-bootstrap.ts'
import { richPolicies } from './envoy-rbac-policies.ts'
import { anySent, askBytes, bytesOf, type Door, startBackend } from './envoy-rbac-requests.ts'
import { eventually } from './eventually.ts'
import type { Interop, Outcome, Surroundings } from './interop.ts'

const corpus = join(import.meta.dirname, '../../../shared/corpus')
const fixtures = ['A', 'D', 'DX', 'H', 'HD', 'HA', 'T1', 'T2-deny']
const web = {
  id: undefined,
  namespace: 'app',
  labels: { app: 'web' },
  ip: undefined,
  port: undefined,
}
const requests = 600

interface Case {
  readonly id: string
  readonly request: {
    readonly raw?: string
    readonly http?: { method: string; path: string; host?: string; headers?: [string, string][] }
  }
}

function fixtureOf(name: string) {
  const file = (it: string) => join(corpus, name, it)
  const mesh = readMesh(file('mesh.yaml'), 'strict')
  const set = compile(readPolicies(readPolicyTexts([file('policies.yaml')])), { mesh })
  const cases = readFileSync(file('cases.jsonl'), 'utf8')
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line): Case => JSON.parse(line))
  return { name, set, cases, lowered: lower(set, web) }
}

type Fixture = ReturnType<typeof fixtureOf>

function bytesOfCase({ request: { raw, http } }: Case): Uint8Array | undefined {
  if (raw !== undefined) return Buffer.from(raw, 'base64')
  if (http === undefined) return undefined
  const { method, path, host, headers = [] } = http
  const hosts = host === undefined ? [] : [host]
  const none = { peerIp: undefined, destinationIp: undefined, destinationPort: undefined }
  return bytesOf({ ...none, uris: [], serverName: undefined, method, target: path, hosts, headers })
}

interface Counts {
  asked: number
  allowed: number
  /** the engine refuses them as they were sent, and allows what Envoy makes of them */
  rewritten: string[]
  /** the engine allows them */
  lost: string[]
}

type Verdict = 'allow' | 'deny' | 'reject'

/** The engine, about a request that nobody has rewritten. */
function decided(set: PolicySet, raw: RawHttp): Verdict {
  const connected = { source: undefined, sourceIp: undefined, destination: web, sni: undefined }
  const result = evaluateHttp(set, connected, { raw, now: systemClock.now() })
  if (result.kind === 'rejected') return 'reject'
  return result.decision.allow ? 'allow' : 'deny'
}

/** Throws for a request that Envoy allows and the engine does not, as it was sent or as it was forwarded. */
async function compareCases({ name, set, cases }: Fixture, door: Door, counts: Counts) {
  using reader = createByteReader({
    limits: defaultLimits,
    log: createLog({ name: 'policy', level: 'silent' }),
    tally: createTally(systemClock),
  })
  for (const it of cases) {
    const bytes = bytesOfCase(it)
    if (bytes === undefined) continue
    const raw = await reader.read(bytes)
    const decision = isRejection(raw) ? 'reject' : decided(set, raw)
    const { status, target } = await askBytes(door, bytes)
    const isAllowed = target !== undefined
    counts.asked++
    if (isAllowed) counts.allowed++
    if (!isAllowed && decision === 'allow') counts.lost.push(`${name} ${it.id} (${status})`)
    if (!isAllowed || decision === 'allow') continue
    const forwarded = { method: 'GET', host: 'app.example.com', target, headers: [] }
    if (decision === 'deny' || decided(set, forwarded) !== 'allow') {
      throw new Error(`${name} ${it.id}: Envoy allows it, the engine says ${decision}`)
    }
    counts.rewritten.push(`${name} ${it.id}`)
  }
}

/** What the interpreter says; undefined when Envoy answers before any filter. */
function interpreted(lowered: Lowered, sent: Sent, { trustedHops }: Mesh) {
  const mergesSlashes = !lowered.demands.includes('plain-slashes')
  const seen = asEnvoySees(sent, { mergesSlashes, trustedHops })
  if (seen === undefined) return undefined
  const isAllowed = rbacFilters(lowered).every(
    ({ typedConfig }) => rbacVerdict(typedConfig, seen).isAllowed,
  )
  return { isAllowed, target: headerText(seen, ':path') }
}

interface Rich {
  readonly mesh: Mesh
  readonly lowered: Lowered
  readonly doorOf: (uri: string) => Door
}

/** Throws where the program and the interpreter differ. */
async function compareInterpreter({ lowered, mesh, doorOf }: Rich, uris: readonly string[]) {
  const counts = { allowed: 0, denied: 0, refused: 0 }
  for (const sent of fc.sample(anySent(uris), requests)) {
    const wanted = interpreted(lowered, sent, mesh)
    const { status, target } = await askBytes(doorOf(sent.uris[0] ?? ''), bytesOf(sent))
    const isAllowed = target !== undefined
    const shown = `${JSON.stringify(sent)}: Envoy ${status} ${target}, here ${JSON.stringify(wanted)}`
    if (isAllowed !== (wanted?.isAllowed ?? false)) throw new Error(shown)
    if (isAllowed && target !== wanted?.target) throw new Error(shown)
    counts[isAllowed ? 'allowed' : wanted === undefined ? 'refused' : 'denied']++
  }
  return counts
}

function richOf(text: string, mesh: Mesh): Omit<Rich, 'doorOf'> {
  const set = compile(readPolicies([{ name: 'rich.yaml', text }]), { mesh })
  const lowered = lower(set, web)
  if (lowered.needsAuthz) throw new Error(JSON.stringify(lowered.refused))
  return { mesh, lowered }
}

function makeTls() {
  const authority = makeTestAuthority('td')
  const server = authority.issue('spiffe://td/ns/app/sa/web')
  const roots = bundleToPem(authority.bundle)
  const chain = server.chain.map((der) => toPem(der, 'CERTIFICATE')).join('')
  const key = String(server.key.export({ format: 'pem', type: 'pkcs8' }))
  return { authority, tls: { chain, key, roots } }
}

async function run({ log }: Surroundings): Promise<Outcome> {
  const envoy = await findEnvoy(log)
  if (envoy.kind === 'missing') return { kind: 'skipped', reason: envoy.reason }
  await using stack = new AsyncDisposableStack()
  const folder = mkdtempSync(join(tmpdir(), 'envoy-rbac-'))
  stack.defer(() => rmSync(folder, { recursive: true, force: true }))
  const backend = stack.use(await startBackend())
  const cases = existsSync(corpus) ? fixtures.map(fixtureOf) : []
  if (cases.length === 0) log('no corpus beside the repository')
  const { authority, tls } = makeTls()
  const uris = ['spiffe://td/ns/a/sa/x', 'spiffe://td/ns/b/sa/y', 'spiffe://td/odd']
  const svids = new Map(uris.map((uri) => [uri, authority.issue(uri)]))
  const meshes = [0, 1].map((trustedHops): Mesh => {
    const trustedProxies = [{ bits: 32, value: 0x7f000001n, prefix: 32 } as const]
    return { ...defaultMesh, trustDomain: 'td', trustedHops, trustedProxies }
  })
  const rich = meshes.map((mesh, i) => richOf(richPolicies(i === 1), mesh))
  const ports = await freePorts(cases.length + rich.length)
  const listeners: Listener[] = [
    ...cases.map(({ name, lowered }) => ({ name, lowered, trustedHops: 0 })),
    ...rich.map(({ lowered, mesh }, i) => ({
      name: `rich-${i}`,
      lowered,
      trustedHops: mesh.trustedHops,
      tls,
    })),
  ].map((it, i) => ({ ...it, port: ports[i] ?? 0 }))
  const bootstrap = rbacBootstrap(listeners, {
    admin: join(folder, 'admin.sock'),
    backend: backend.port,
  })
  stack.use(await startEnvoy(envoy.path, { name: 'envoy', folder, bootstrap }))
  const hello = Buffer.from('GET / HTTP/1.1\r\nhost: a\r\n\r\n')
  await eventually('Envoy listens', () => askBytes({ port: ports[0] ?? 0 }, hello))
  const counts: Counts = { asked: 0, allowed: 0, rewritten: [], lost: [] }
  for (const [i, it] of cases.entries()) await compareCases(it, { port: ports[i] ?? 0 }, counts)
  log(`corpus: ${counts.asked} asked, ${counts.allowed} allowed, none that the engine denies`)
  log(`  rewritten before they are judged: ${counts.rewritten.join(', ') || 'none'}`)
  log(`  allowed by the engine alone: ${counts.lost.join(', ') || 'none'}`)
  for (const [i, it] of rich.entries()) {
    const port = ports[cases.length + i] ?? 0
    const doorOf = (uri: string): Door => ({ port, svid: svids.get(uri), roots: tls.roots })
    const answered = await compareInterpreter({ ...it, doorOf }, uris)
    log(
      `interpreter, ${it.mesh.trustedHops} trusted hops: ${JSON.stringify(answered)}, all as it says`,
    )
  }
  return { kind: 'ok' }
}

export const envoyRbac: Interop = { name: 'envoy-rbac', run }
