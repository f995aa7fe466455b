// An authority of one's own: a temporary folder, ports of the kernel's choice, the log in memory.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type CaConfig, loadCaConfig } from '../../ca/config.ts'
import { type RunningAuthority, type RunOptions, runAuthority } from '../../ca/main.ts'
import { prepareState } from '../../ca/state-folder.ts'
import { createTopic } from '../../runtime/lifecycle.ts'
import { createLog, type Log } from '../../runtime/log.ts'
import { testFolder } from './folder.ts'

/** Writes ca.yaml into `folder` and lays out its state; `more` are further lines of it. */
export function testConfig(folder: string, more = '', port = 0): CaConfig {
  const file = join(folder, 'ca.yaml')
  const text = `trustDomain: example.org
state: ./state
unlock: { keyFile: ./ca.key }
listen: 127.0.0.1:${port}
operations: 127.0.0.1:0
${more}`
  writeFileSync(file, text)
  const config = loadCaConfig(file)
  prepareState(config)
  return config
}

export interface MemoryLog {
  readonly log: Log
  readonly lines: string[]
  /** Resolves once a line holds `text`. */
  says(text: string): Promise<void>
}

/** A log whose lines can be read; `lines` grows. */
export function memoryLog(): MemoryLog {
  const lines: string[] = []
  const written = createTopic<string>()
  const destination = {
    write(line: string) {
      lines.push(line)
      written.publish(line)
    },
  }
  return {
    log: createLog({ name: 'ca', level: 'debug', destination }),
    lines,
    async says(text) {
      if (lines.some((line) => line.includes(text))) return
      const said = Promise.withResolvers<void>()
      using _ = written.subscribe((line) => {
        if (line.includes(text)) said.resolve()
      })
      await said.promise
    },
  }
}

export interface TestCa extends AsyncDisposable {
  readonly folder: string
  readonly config: CaConfig
  readonly running: RunningAuthority
  readonly lines: readonly string[]
}

export interface TestCaOptions extends Partial<Omit<RunOptions, 'log'>> {
  /** a folder that stays; a temporary one when left out */
  readonly folder?: string
  readonly config?: string
}

export async function startTestCa(options: TestCaOptions = {}): Promise<TestCa> {
  const { config: more, folder: given, ...run } = options
  await using undo = new AsyncDisposableStack()
  const folder = given ?? undo.use(testFolder()).path
  const config = testConfig(folder, more)
  const { log, lines } = memoryLog()
  const running = undo.use(await runAuthority(config, { log, ...run }))
  const all = undo.move()
  return { folder, config, running, lines, [Symbol.asyncDispose]: () => all.disposeAsync() }
}
