// Authorities under load, each a process of its own: ours, and a stock spire-server without rate limits.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { IdentityError } from '../../spiffe/errors.ts'
import { freePort } from '../../test/support/ports.ts'
import { type Usage, usageOf } from './usage.ts'

export interface AuthorityProcess extends Usage, AsyncDisposable {
  readonly port: number
  /** for administration */
  readonly socket: string
  readonly child: ChildProcess
  /** milliseconds from its start until both listen */
  readonly startedIn: number
}

/** An authority whose state is on disk: it can be started, stopped and started again. */
export interface Prepared {
  readonly name: string
  readonly program: string
  readonly args: readonly string[]
  readonly port: number
  readonly socket: string
}

/** milliseconds that a start with a million entries may take */
const patience = 300_000
const lookEvery = 20

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

/** `ipc` for a program that was told to talk. */
export async function start(
  { name, program, args, port, socket }: Prepared,
  talk: 'ignore' | 'ipc' = 'ignore',
): Promise<AuthorityProcess> {
  const began = performance.now()
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'inherit', talk] })
  const gone = once(child, 'exit')
  while (!((await answers({ path: socket })) && (await answers({ port })))) {
    if (child.exitCode !== null || performance.now() > began + patience) {
      child.kill('SIGKILL')
      throw new IdentityError(
        'ERR_UNAVAILABLE',
        `${name} does not listen on ${socket} and port ${port}; what it says is above`,
      )
    }
    await delay(lookEvery)
  }
  return {
    port,
    socket,
    child,
    startedIn: performance.now() - began,
    ...usageOf(child.pid ?? 0),
    async [Symbol.asyncDispose]() {
      child.kill()
      await gone
    },
  }
}

/** `castellan ca run` with its state in `folder`, which is made. `nodeArgs` are for Node, not for us. */
export async function prepareOurs(
  folder: string,
  nodeArgs: readonly string[] = [],
): Promise<Prepared> {
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
  const boot = join(import.meta.dirname, '../../cli/boot.mjs')
  // the flag is that of bin/castellan
  const args = (verb: string) => [
    ...nodeArgs,
    '--max-semi-space-size=8',
    boot,
    'ca',
    verb,
    '--config',
    config,
  ]
  const init = spawn(process.execPath, args('init'), { stdio: ['ignore', 'ignore', 'inherit'] })
  await once(init, 'exit')
  const name = 'castellan ca run'
  return { name, program: process.execPath, args: args('run'), port, socket }
}

export async function startOurs(folder: string): Promise<AuthorityProcess> {
  return start(await prepareOurs(folder))
}

/** `program` is a spire-server. */
export async function prepareStock(program: string, folder: string): Promise<Prepared> {
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
  return { name: 'spire-server', program, args: ['run', '-config', config], port, socket }
}

export async function startStock(program: string, folder: string): Promise<AuthorityProcess> {
  return start(await prepareStock(program, folder))
}
