// Authorities under load, each a process of its own: ours, and a stock spire-server without rate limits.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { IdentityError } from '../../spiffe/errors.ts'

export interface AuthorityProcess extends AsyncDisposable {
  readonly port: number
  /** for administration */
  readonly socket: string
  /** microseconds used so far, user and system */
  cpu(): number
}

/** 100 ticks a second on every Linux that Node runs on */
const microsecondsPerTick = 10_000
const patience = 30_000

function cpuOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  // the name in brackets may hold anything
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) * microsecondsPerTick
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const bound = server.address()
  server.close()
  await once(server, 'close')
  return typeof bound === 'object' && bound !== null ? bound.port : 0
}

async function answers(to: { path: string } | { port: number }): Promise<boolean> {
  const socket = connect(to)
  try {
    await once(socket, 'connect')
    return true
  } catch {
    // not yet
    return false
  } finally {
    socket.destroy()
  }
}

async function started(
  name: string,
  child: ChildProcess,
  { port, socket }: { port: number; socket: string },
): Promise<AuthorityProcess> {
  const end = performance.now() + patience
  while (!((await answers({ path: socket })) && (await answers({ port })))) {
    if (child.exitCode !== null || performance.now() > end) {
      child.kill('SIGKILL')
      throw new IdentityError('ERR_UNAVAILABLE', `${name} does not start`)
    }
    await delay(50)
  }
  const gone = once(child, 'exit')
  return {
    port,
    socket,
    cpu: () => cpuOf(child.pid ?? 0),
    async [Symbol.asyncDispose]() {
      child.kill()
      await gone
    },
  }
}

/** `castellan ca run` with its state in `folder`, which is made. */
export async function startOurs(folder: string): Promise<AuthorityProcess> {
  mkdirSync(folder, { recursive: true })
  const port = await freePort()
  const socket = join(folder, 'ca.sock')
  const config = join(folder, 'ca.yaml')
  const text = `trustDomain: example.org
state: state
unlock: { keyFile: ca.key }
listen: 127.0.0.1:${port}
socket: ca.sock
operations: 127.0.0.1:0
logLevel: error
`
  writeFileSync(config, text)
  const run = (verb: string) =>
    spawn(
      process.execPath,
      [join(import.meta.dirname, '../../cli/boot.mjs'), 'ca', verb, '--config', config],
      { stdio: ['ignore', 'ignore', 'inherit'] },
    )
  await once(run('init'), 'exit')
  return started('castellan ca run', run('run'), { port, socket })
}

/** `program` is a spire-server. */
export async function startStock(program: string, folder: string): Promise<AuthorityProcess> {
  mkdirSync(folder, { recursive: true })
  const port = await freePort()
  const socket = join(folder, 'api.sock')
  const config = join(folder, 'server.conf')
  const text = `server {
  bind_address = "127.0.0.1"
  bind_port = "${port}"
  socket_path = "${socket}"
  trust_domain = "example.org"
  data_dir = "${folder}"
  log_level = "ERROR"
  ca_ttl = "168h"
  default_x509_svid_ttl = "1h"
  ratelimit {
    attestation = false
    signing = false
  }
}
plugins {
  DataStore "sql" {
    plugin_data {
      database_type = "sqlite3"
      connection_string = "${join(folder, 'datastore.sqlite3')}"
    }
  }
  NodeAttestor "join_token" { plugin_data {} }
  KeyManager "memory" { plugin_data {} }
}
`
  writeFileSync(config, text)
  const child = spawn(program, ['run', '-config', config], {
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  return started('spire-server', child, { port, socket })
}
