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
import { toPem } from '../spiffe/pem.ts'
import { nginxProblem, startStreamProxy, startWorkload } from './pipe/nginx.ts'

const rounds = 7
const warmUp = 3_000
const requests = 30_000
const connections = 32
const goal = 1.15

interface Credential {
  readonly cert: string
  readonly key: string
}

function credentialOf(name: string, all: readonly DevCertificate[]): Credential {
  const found = all.find((it) => it.name === name)
  if (found === undefined) throw new Error(`no development certificate ${name}`)
  return {
    cert: found.chain.map((der) => toPem(der, 'CERTIFICATE')).join(''),
    key: String(found.privateKey.export({ format: 'pem', type: 'pkcs8' })),
  }
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

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
}

interface Target {
  readonly pid: number
  readonly port: number
  /** microseconds of CPU per request, by round */
  readonly cpu: number[]
  /** requests per second, by round */
  readonly rate: number[]
}

async function measure(load: ChildProcess, order: object, target: Target): Promise<void> {
  await ask(load, { ...order, port: target.port, requests: warmUp }, 'ms')
  const before = cpuOf(target.pid)
  const ms = await ask(load, { ...order, port: target.port, requests }, 'ms')
  target.cpu.push((cpuOf(target.pid) - before) / requests)
  target.rate.push((requests / ms) * 1000)
}

export interface PipeResult {
  /** microseconds of CPU per request */
  readonly own: number
  readonly nginx: number
  readonly rows: readonly { readonly name: string; readonly cpu: number; readonly rate: number }[]
}

async function compare(folder: string): Promise<PipeResult> {
  const trustDomain = parseTrustDomain('bench.example')
  const all = makeDevelopmentCertificates({ trustDomain, now: Date.now() })
  const [server, client] = [credentialOf('good', all), credentialOf('good-client', all)]
  const root = credentialOf('root', all).cert
  await writeFile(join(folder, 'chain.pem'), server.cert)
  await writeFile(join(folder, 'key.pem'), server.key, { mode: 0o600 })
  await writeFile(join(folder, 'root.pem'), root)
  await using workload = await startWorkload(folder)
  await using nginx = await startStreamProxy(folder, workload.port)
  using sidecar = child('./pipe/sidecar.ts')
  using load = child('./pipe/load.ts')
  const setting = {
    chain: server.cert,
    key: server.key,
    root,
    workload: `127.0.0.1:${workload.port}`,
  }
  const port = await ask(sidecar, setting, 'port')
  const own: Target = { pid: sidecar.pid ?? 0, port, cpu: [], rate: [] }
  const peer: Target = { pid: nginx.pid, port: nginx.port, cpu: [], rate: [] }
  const order = { connections, ...client, root }
  for (let round = 0; round < rounds; round++) {
    const pair = round % 2 === 0 ? [own, peer] : [peer, own]
    for (const target of pair) await measure(load, order, target)
  }
  const row = (name: string, { cpu, rate }: Target) => ({
    name,
    cpu: median(cpu),
    rate: median(rate),
  })
  const rows = [row('castellan proxy (tcp)', own), row('nginx stream', peer)]
  return { own: median(own.cpu), nginx: median(peer.cpu), rows }
}

export async function measurePipe(): Promise<PipeResult> {
  const problem = nginxProblem()
  if (problem !== undefined) throw new IdentityError('ERR_UNAVAILABLE', problem)
  const folder = await mkdtemp(join(tmpdir(), 'castellan-pipe-'))
  try {
    return await compare(folder)
  } finally {
    await rm(folder, { recursive: true })
  }
}

export const pipeGoal = goal
