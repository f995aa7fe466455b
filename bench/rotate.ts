// bench rotate: certificates that change all the while, through Envoy and through the embedded proxy: no request may
// fail, and how long after the authority was asked is the new certificate served?
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { connect, TLSSocket } from 'node:tls'
import { createClient } from '@connectrpc/connect'
import { stringify } from 'yaml'
import { Entry } from '../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import { parseCertificate } from '../spiffe/certificate.ts'
import { IdentityError } from '../spiffe/errors.ts'
import { type DrivenEnvoy, startDrivenEnvoy } from '../test/support/driven-envoy.ts'
import { trustDomain } from '../test/support/node.ts'
import { policyText } from '../test/support/policy-text.ts'
import { freePorts } from '../test/support/ports.ts'
import { startTraffic } from './load/start.ts'
import type { TrafficResult } from './load/traffic.ts'
import { type Bench, type BenchResult, judge, percentile, rounded } from './measure.ts'
import { envoyProgram, untilAllowed } from './servers/envoy.ts'

const rotations = 1000
const rate = 1000
const policy = policyText('[{ to: [{ operation: { paths: [/ok] } }] }]', { name: 'web' })

interface Subject {
  readonly name: string
  /** mutual TLS */
  readonly inbound: number
  /** plain, and on to `inbound` */
  readonly outbound: number
  readonly entryId: string
}

/** The serial of the certificate that is shown to who connects now. */
async function servedAt(it: DrivenEnvoy, port: number): Promise<string> {
  const socket = connect({
    host: '127.0.0.1',
    port,
    rejectUnauthorized: true,
    ca: it.roots(),
    checkServerIdentity: () => undefined,
  })
  try {
    await once(socket, 'secureConnect')
    const raw = socket instanceof TLSSocket ? socket.getPeerX509Certificate()?.raw : undefined
    return raw === undefined ? '' : parseCertificate(raw).serial
  } catch {
    return ''
  } finally {
    socket.on('error', () => {}).destroy()
  }
}

/** Milliseconds until another certificate than `before` is served. */
async function rotateOnce(it: DrivenEnvoy, subject: Subject, hint: string): Promise<number> {
  const before = await servedAt(it, subject.inbound)
  const began = performance.now()
  const entries = createClient(Entry, it.node.local)
  await entries.batchUpdateEntry({
    entries: [{ id: subject.entryId, hint }],
    inputMask: { hint: true },
  })
  for (let look = 0; look < 3000; look++) {
    const now = await servedAt(it, subject.inbound)
    if (now !== '' && now !== before) return performance.now() - began
  }
  throw new IdentityError('ERR_UNAVAILABLE', `${subject.name} does not serve another certificate`)
}

interface Measured {
  readonly traffic: TrafficResult
  readonly times: readonly number[]
}

async function measure(it: DrivenEnvoy, subject: Subject): Promise<Measured> {
  await using traffic = startTraffic({ port: subject.outbound, rate })
  const times: number[] = []
  for (let i = 0; i < rotations; i++) {
    times.push(await rotateOnce(it, subject, `${subject.name}-${i}`))
    if (i % 100 === 99) console.error(`rotate: ${subject.name}: ${i + 1} of ${rotations}`)
  }
  return { traffic: await traffic.result(), times }
}

/** The embedded proxy as the workload that Envoy was: the same listeners on other ports. */
async function startEmbedded(it: DrivenEnvoy, stack: AsyncDisposableStack): Promise<Subject> {
  const [inbound = 0, outbound = 0] = await freePorts(2)
  const id = `spiffe://${trustDomain}/ns/shop/sa/embedded`
  const selectors = [`unix:uid:${process.getuid?.()}`, `unix:path:${process.execPath}`]
  const entryId = await it.node.register('/ns/shop/sa/embedded', selectors)
  const file = join(it.node.folder, 'embedded.yaml')
  const spec = {
    workloadApi: `unix://${it.node.agent.socket}`,
    identity: id,
    inbound: [
      {
        ...{ listen: `127.0.0.1:${inbound}`, protocol: 'http', maxConnectionAge: '2s' },
        forwardTo: `127.0.0.1:${it.ports.backend}`,
      },
    ],
    outbound: [
      {
        ...{ listen: `127.0.0.1:${outbound}`, protocol: 'http', expect: [id] },
        destination: `127.0.0.1:${inbound}`,
      },
    ],
  }
  writeFileSync(file, stringify(spec))
  const program = join(import.meta.dirname, '../cli/boot.mjs')
  const args = [program, 'proxy', 'run', '--spec', file, '--log-level', 'error']
  // its SVID has to be there first
  await new Promise((resolve) => setTimeout(resolve, 2000))
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'inherit', 'inherit'] })
  stack.defer(async () => {
    const gone = once(child, 'exit')
    child.kill('SIGTERM')
    await gone
  })
  return { name: 'embedded', inbound, outbound, entryId }
}

function rowOf({ name }: Subject, { traffic, times }: Measured) {
  return {
    proxy: name,
    rotations: times.length,
    requests: traffic.requests,
    failed: traffic.failed,
    'p50 ms': rounded(traffic.p50),
    'p99 ms': rounded(traffic.p99),
    'to serving p50 ms': rounded(percentile(times, 0.5)),
    'to serving p99 ms': rounded(percentile(times, 0.99)),
  }
}

async function run(): Promise<BenchResult> {
  const envoy = await envoyProgram('rotate')
  await using stack = new AsyncDisposableStack()
  const inbound = { maxConnectionAge: '2s' }
  const it = stack.use(await startDrivenEnvoy({ envoy, delta: true, inbound }))
  await it.apply(policy)
  const driven: Subject = { name: 'envoy', ...it.ports, entryId: it.entryId }
  const embedded = await startEmbedded(it, stack)
  const rows: Record<string, string | number>[] = []
  const all: Measured[] = []
  for (const subject of [driven, embedded]) {
    await untilAllowed(() => ({ port: subject.outbound }))
    const measured = await measure(it, subject)
    for (const problem of measured.traffic.failures)
      console.error(`rotate: ${subject.name}: ${problem}`)
    rows.push(rowOf(subject, measured))
    all.push(measured)
  }
  const failed = all.reduce((sum, { traffic }) => sum + traffic.failed, 0)
  const [own = 0, other = 0] = all.map(({ times }) => percentile(times, 0.5))
  const { ok } = judge([
    { what: 'failed requests', measured: failed, unit: '', limit: { most: 0 } },
  ])
  console.error(
    `rotate: new certificates after ${rounded(own)} ms (Envoy), ${rounded(other)} ms (embedded), median`,
  )
  const peer = {
    name: 'requests',
    figure: all.reduce((sum, { traffic }) => sum + traffic.requests, 0),
  }
  return { rows, figure: failed, unit: 'failed requests', goal: 0, peer, ok }
}

export const rotateBench: Bench = { name: 'rotate', run }
