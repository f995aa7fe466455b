// The servers that `bench authz` compares, each a process that answers at a socket of its own.
import { type ChildProcess, fork, spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { buildGo } from '../test/interop/go.ts'
import { policyRules } from './authz-load.ts'
import { usageOf } from './servers/usage.ts'

export interface Subject extends AsyncDisposable {
  readonly name: string
  readonly path: string
  /** microseconds so far */
  cpu(): Promise<number>
}

const patience = 60_000

async function answerOf(child: ChildProcess): Promise<number> {
  const [value] = await once(child, 'message', { signal: AbortSignal.timeout(patience) })
  if (typeof value !== 'number') throw new TypeError(`the server said ${value}`)
  return value
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const gone = once(child, 'exit')
  child.kill('SIGKILL')
  await gone
}

/** One of those of authz-server.ts. */
export async function startSubject(name: string, folder: string, root: string): Promise<Subject> {
  const path = join(folder, `${name}.sock`)
  const child = fork(join(import.meta.dirname, 'authz-server.ts'), [name, path, root])
  await answerOf(child)
  return {
    ...{ name, path },
    cpu() {
      const value = answerOf(child)
      child.send('cpu')
      return value
    },
    [Symbol.asyncDispose]: () => end(child),
  }
}

/** Resolves when the program says that it listens. */
async function untilReady(child: ChildProcess): Promise<void> {
  if (child.stdout === null) throw new TypeError('its output is not read')
  const lines = createInterface({ input: child.stdout })
  const signal = AbortSignal.timeout(patience)
  const exited = once(child, 'exit', { signal }).then(([code]) => {
    throw new Error(`OPA exited with ${code}`)
  })
  // one that exits later is noticed by who asks it
  exited.catch(() => {})
  await Promise.race([once(lines, 'line', { signal }), exited])
}

/** OPA's library behind grpc-go (./opa), with the same policies; undefined where it cannot be built. */
export async function startOpa(
  folder: string,
  log: (line: string) => void,
): Promise<Subject | undefined> {
  const built = await buildGo('opa', { log }, { module: '../../bench/opa', program: '.' })
  if (built.kind === 'skipped') {
    log(`left out: ${built.reason}`)
    return undefined
  }
  const path = join(folder, 'opa.sock')
  const rules = join(folder, 'rules.json')
  writeFileSync(rules, JSON.stringify(policyRules()))
  // it ends when its input does: also if this process has no time left to end it
  const child = spawn(built.path, ['-socket', path, '-rules', rules], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  try {
    await untilReady(child)
  } catch (error) {
    await end(child)
    throw error
  }
  if (child.pid === undefined) throw new TypeError('a process without a number')
  const usage = usageOf(child.pid)
  return {
    ...{ name: 'OPA', path },
    cpu: async () => usage.cpu(),
    [Symbol.asyncDispose]: () => end(child),
  }
}
