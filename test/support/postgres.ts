// A real PostgreSQL server of a test's own: a new cluster in a temporary folder, listening on loopback only.
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chownSync, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { createInterface } from 'node:readline'
import pg from 'pg'
import { freePort } from './ports.ts'

/** Debian keeps the server's programs off the PATH, in a folder for each version. */
const debian = '/usr/lib/postgresql'

function programFolder(): string | undefined {
  const versions = existsSync(debian) ? readdirSync(debian).sort().reverse() : []
  const folders = [
    ...(process.env.PATH ?? '').split(delimiter),
    ...versions.map((version) => join(debian, version, 'bin')),
  ]
  return folders.find((folder) => existsSync(join(folder, 'initdb')))
}

/** Why there is no server to test with; undefined when there is. CI has one, or fails. */
export function whyNoPostgres(): string | undefined {
  if (programFolder() !== undefined) return undefined
  const reason = 'PostgreSQL is not installed (Debian: postgresql)'
  if (process.env.CI === 'true') throw new Error(reason)
  console.log(`not tested on PostgreSQL: ${reason}`)
  return reason
}

/** The server refuses to run as root: as one of these users it runs. */
function account(): { uid?: number; gid?: number } {
  if (process.getuid?.() !== 0) return {}
  for (const name of ['postgres', 'nobody']) {
    const { status, stdout } = spawnSync('id', ['-u', name], { encoding: 'utf8' })
    if (status !== 0) continue
    const gid = Number(execFileSync('id', ['-g', name], { encoding: 'utf8' }))
    return { uid: Number(stdout), gid }
  }
  return {}
}

export interface TestPostgres extends AsyncDisposable {
  /** A new database, empty. */
  database(): Promise<string>
  /** Without a chance to say goodbye. */
  kill(): Promise<void>
  /** On the same port, with what was on the disk. */
  start(): Promise<void>
  query(sql: string, url?: string): Promise<Readonly<Record<string, unknown>>[]>
}

export async function startPostgres(): Promise<TestPostgres> {
  const bin = programFolder() ?? ''
  const folder = mkdtempSync(join(tmpdir(), 'castellan-postgres-'))
  const owner = account()
  if (owner.uid !== undefined && owner.gid !== undefined) chownSync(folder, owner.uid, owner.gid)
  const data = join(folder, 'data')
  const options = { ...owner, cwd: folder } as const
  execFileSync(join(bin, 'initdb'), ['-D', data, '-U', 'castellan', '--auth=trust'], {
    ...options,
    stdio: 'ignore',
  })
  const port = await freePort()
  const urlOf = (name: string) => `postgres://castellan@127.0.0.1:${port}/${name}`
  let server: ChildProcess | undefined
  let count = 0

  async function start(): Promise<void> {
    const settings = [`port=${port}`, 'listen_addresses=127.0.0.1', 'unix_socket_directories=']
    const flags = settings.flatMap((it) => ['-c', it])
    const child = spawn(join(bin, 'postgres'), ['-D', data, ...flags], {
      ...options,
      // its words are waited for
      env: { ...process.env, LC_ALL: 'C' },
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    server = child
    // read to its end, or the server would stop at a full pipe
    const lines = createInterface({ input: child.stderr })
    const ready = Promise.withResolvers<void>()
    let last = ''
    lines.on('line', (line) => {
      last = line
      if (line.includes('ready to accept connections')) ready.resolve()
    })
    lines.on('close', () => ready.reject(new Error(`PostgreSQL (${bin}) ended: ${last}`)))
    await ready.promise
  }

  async function stop(signal: NodeJS.Signals): Promise<void> {
    if (server === undefined || server.exitCode !== null || server.signalCode !== null) return
    const gone = once(server, 'exit')
    server.kill(signal)
    await gone
  }

  async function query(sql: string, url = urlOf('postgres')) {
    const client = new pg.Client({ connectionString: url })
    await client.connect()
    try {
      return (await client.query(sql)).rows
    } finally {
      await client.end()
    }
  }

  await start()
  return {
    start,
    query,
    kill: () => stop('SIGQUIT'),
    async database() {
      const name = `test_${++count}`
      await query(`CREATE DATABASE ${name}`)
      return urlOf(name)
    },
    async [Symbol.asyncDispose]() {
      await stop('SIGQUIT')
      rmSync(folder, { recursive: true, force: true })
    },
  }
}
