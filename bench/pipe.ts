// `pipe`: what the sidecar's TCP listener costs per request, beside nginx's stream proxy: mutual TLS, kept
// connections, 1 KiB answers, the same load and workload, rounds interleaved, CPU of the proxy alone.
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type DevCertificate, makeDevelopmentCertificates } from '../certs-dev/development.ts'
import { IdentityError } from '../spiffe/errors.ts'
import { parseTrustDomain } from '../spiffe/id.ts'
import { keyPairToPem } from '../spiffe/pem.ts'
import { type Bench, type BenchResult, median, rounded } from './measure.ts'
import { nginxProblem, startHttpProxy, startStreamProxy, startWorkload } from './pipe/nginx.ts'

const rounds = 7
const warmUp = 1_000
const requests = 20_000
const connections = 32
const mostTimesNginx = 1.15

interface Credential {
  readonly cert: string
  readonly key: string
}

function credentialOf(name: string, all: readonly DevCertificate[]): Credential {
  const found = all.find((it) => it.name === name)
  if (found === undefined) throw new Error(`no development certificate ${name}`)
  return keyPairToPem({ chain: found.chain, key: found.privateKey })
}

/** Microseconds of CPU that a process has used so far, all threads, user and system (proc(5)). */
function cpuOf(pid: number): number {
  const text = readFileSync(`/proc/${pid}/stat`, 'latin1')
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  const ticks = Number(fields[11]) + Number(fields[12])
  return ticks * 10_000
}

function child(file: string): ChildProcess & Disposable {
  const started = fork(new URL(file, import.meta.url), { stdio: 'inherit' })
  return Object.assign(started, { [Symbol.dispose]: () => void started.kill() })
}

async function ask(process: ChildProcess, message: object, field: string): Promise<number> {
  process.send(message)
  const [answer]: unknown[] = await once(process, 'message')
  const value: unknown =
    typeof answer === 'object' && answer !== null ? Reflect.get(answer, field) : undefined
  if (typeof value !== 'number') throw new Error(`no ${field} from a child process`)
  return value
}

interface Target {
  readonly name: string
  readonly pid: number
  readonly port: number
  /** microseconds of CPU per request, by round */
  readonly cpu: number[]
  /** requests per second, by round */
  readonly rate: number[]
}

async function measure(
  load: ChildProcess,
  order: object,
  target: Target,
  counts: boolean,
): Promise<void> {
  const { pid, port } = target
  await ask(load, { ...order, port, requests: warmUp }, 'ms')
  const before = cpuOf(pid)
  const ms = await ask(load, { ...order, port, requests }, 'ms')
  if (!counts) return
  target.cpu.push((cpuOf(pid) - before) / requests)
  target.rate.push((requests / ms) * 1000)
}

const perRequest = (target: Target) => rounded(median(target.cpu))

/** The figure is against the stream proxy; nginx as an HTTP proxy stands beside it for comparison. */
function resultOf(own: Target, stream: Target, http: Target): BenchResult {
  const row = (target: Target) => ({
    proxy: target.name,
    'CPU us per request, median': perRequest(target),
    least: rounded(Math.min(...target.cpu)),
    'requests/s, median': rounded(median(target.rate), 0),
    'times nginx stream': rounded(median(target.cpu) / median(stream.cpu)),
  })
  const goal = rounded(perRequest(stream) * mostTimesNginx)
  return {
    rows: [own, stream, http].map(row),
    figure: perRequest(own),
    unit: 'us of CPU per request',
    goal,
    peer: { name: stream.name, figure: perRequest(stream) },
    ok: perRequest(own) <= goal,
  }
}

async function compare(folder: string): Promise<BenchResult> {
  const trustDomain = parseTrustDomain('bench.example')
  const all = makeDevelopmentCertificates({ trustDomain, now: Date.now() })
  const [server, client] = [credentialOf('good', all), credentialOf('good-client', all)]
  const root = credentialOf('root', all).cert
  await writeFile(join(folder, 'chain.pem'), server.cert)
  await writeFile(join(folder, 'key.pem'), server.key, { mode: 0o600 })
  await writeFile(join(folder, 'root.pem'), root)
  await using workload = await startWorkload(folder)
  await using stream = await startStreamProxy(folder, workload.port)
  await using http = await startHttpProxy(folder, workload.port)
  using sidecar = child('./pipe/sidecar.ts')
  using load = child('./pipe/load.ts')
  const address = `127.0.0.1:${workload.port}`
  const setting = { chain: server.cert, key: server.key, root, workload: address }
  const port = await ask(sidecar, setting, 'port')
  const target = (name: string, it: { readonly pid: number; readonly port: number }): Target => ({
    ...it,
    name,
    cpu: [],
    rate: [],
  })
  const own = target('castellan proxy (tcp)', { pid: sidecar.pid ?? 0, port })
  const peers = [target('nginx stream', stream), target('nginx http', http)] as const
  const order = { connections, ...client, root }
  for (let round = 0; round <= rounds; round++) {
    for (const it of [own, ...peers]) await measure(load, order, it, round > 0)
  }
  return resultOf(own, ...peers)
}

async function run(): Promise<BenchResult> {
  const problem = nginxProblem()
  if (problem !== undefined) throw new IdentityError('ERR_UNAVAILABLE', problem)
  const folder = await mkdtemp(join(tmpdir(), 'castellan-pipe-'))
  try {
    return await compare(folder)
  } finally {
    await rm(folder, { recursive: true })
  }
}

export const pipeBench: Bench = { name: 'pipe', run }
