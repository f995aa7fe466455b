// A stock spire-agent below a stock spire-server: nothing of ours is in what the checks see.
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Agent } from '../../../proto/gen/spire/api/server/agent/v1/agent_pb.js'
import { eventually } from '../../interop/eventually.ts'
import { buildStock } from '../../interop/stock.ts'
import { connectLocally, rootsOf } from '../../support/ca-client.ts'
import { freePort } from '../../support/ports.ts'
import { federate } from './foreign.ts'
import { createOperator } from './operator.ts'
import { prepare, type Subject } from './subject.ts'

const trustDomain = 'example.org'
const agentId = { trustDomain, path: '/node' }

const serverConfig = (folder: string, port: number) => `server {
  bind_address = "127.0.0.1"
  bind_port = "${port}"
  socket_path = "${join(folder, 'server.sock')}"
  trust_domain = "${trustDomain}"
  data_dir = "${folder}"
  log_level = "ERROR"
}
plugins {
  DataStore "sql" {
    plugin_data {
      database_type = "sqlite3"
      connection_string = "${join(folder, 'server.sqlite3')}"
    }
  }
  NodeAttestor "join_token" { plugin_data {} }
  KeyManager "memory" { plugin_data {} }
}
`

const agentConfig = (folder: string, port: number) => `agent {
  data_dir = "${join(folder, 'agent')}"
  log_level = "ERROR"
  server_address = "127.0.0.1"
  server_port = "${port}"
  socket_path = "${join(folder, 'agent.sock')}"
  trust_bundle_path = "${join(folder, 'bundle.pem')}"
  trust_domain = "${trustDomain}"
  experimental { sync_interval = "1s" }
}
plugins {
  NodeAttestor "join_token" { plugin_data {} }
  KeyManager "memory" { plugin_data {} }
  WorkloadAttestor "unix" { plugin_data {} }
}
`

function start(program: string, args: readonly string[]): AsyncDisposable {
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'inherit'] })
  const ended = once(child, 'exit')
  return {
    async [Symbol.asyncDispose]() {
      child.kill()
      await ended
    },
  }
}

function write(folder: string, name: string, text: string): string {
  const file = join(folder, name)
  writeFileSync(file, text)
  return file
}

/** Throws with the reason on a machine that cannot build it. */
export async function startStock(log: (line: string) => void): Promise<Subject> {
  const stock = await buildStock({ log })
  if (stock.kind === 'skipped') throw new Error(stock.reason)
  await using starting = new AsyncDisposableStack()
  const folder = mkdtempSync(join(tmpdir(), 'castellan-stock-'))
  starting.defer(() => rmSync(folder, { recursive: true, force: true }))
  mkdirSync(join(folder, 'agent'))
  const port = await freePort()
  const server = write(folder, 'server.conf', serverConfig(folder, port))
  starting.use(start(stock.server, ['run', '-config', server]))
  const local = join(folder, 'server.sock')
  write(folder, 'bundle.pem', await eventually('the server', () => rootsOf(local)))
  const { client, transport } = starting.use(connectLocally(local))
  const { value: token } = await client(Agent).createJoinToken({ ttl: 600, agentId })
  const agent = write(folder, 'agent.conf', agentConfig(folder, port))
  starting.use(start(stock.agent, ['run', '-config', agent, '-joinToken', token]))
  const socket = join(folder, 'agent.sock')
  const operator = createOperator(transport, agentId)
  const backstage = await prepare(socket, operator, await federate(transport))
  const { stdout, stderr } = await promisify(execFile)(stock.agent, ['--version'])
  const [version] = /\d+\.\d+\.\d+/.exec(stdout + stderr) ?? ['']
  const started = starting.move()
  return {
    ...{ name: `spire-agent ${version}`, socket, backstage },
    [Symbol.asyncDispose]: () => started.disposeAsync(),
  }
}
