// What this repository's tests say of the lines that they name.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { z } from 'zod'
import { idsIn } from './checklist.ts'
import type { Evidence } from './judge.ts'

const root = join(import.meta.dirname, '../..')
const patience = 15 * 60_000

const Results = z.object({
  testResults: z.array(
    z.object({
      name: z.string(),
      message: z.string().optional(),
      assertionResults: z.array(
        z.object({
          fullName: z.string(),
          status: z.string(),
          failureMessages: z.array(z.string()).nullish(),
        }),
      ),
    }),
  ),
})
type Results = z.infer<typeof Results>

/** Test files with an id in a text; the end-to-end tests take too long. */
function filesThatName(): ReadonlyMap<string, readonly string[]> {
  const files = globSync('test/**/*.test.ts', { cwd: root }).filter(
    (file) => !/^test\/(?:e2e|conformance)\//.test(file),
  )
  const named = files.map((file) => {
    const texts = readFileSync(join(root, file), 'utf8').match(/(['"`])(?:(?!\1)[^\n])+\1/g) ?? []
    return [file, idsIn(texts.join('\n'))] as const
  })
  return new Map(named.filter(([, ids]) => ids.length > 0))
}

async function runVitest(files: readonly string[]): Promise<Results> {
  const folder = mkdtempSync(join(tmpdir(), 'castellan-conformance-'))
  try {
    const output = join(folder, 'results.json')
    const named = '(?:^|[^\\w-])(?:(?:ID|X5|JW|WT|TB|FE|WA|WE|BR)-\\d+b?|R\\d+)(?:[^\\w-]|$)'
    const program = join(root, 'node_modules/vitest/vitest.mjs')
    // one start for all files: starting is most of the work
    const args = [
      'run',
      '--no-isolate',
      '--reporter=json',
      `--outputFile=${output}`,
      '-t',
      named,
      ...files,
    ]
    const signal = AbortSignal.timeout(patience)
    const options = { cwd: root, stdio: 'ignore', signal } as const
    await once(spawn(process.execPath, [program, ...args], options), 'exit')
    return Results.parse(JSON.parse(readFileSync(output, 'utf8')))
  } finally {
    rmSync(folder, { recursive: true })
  }
}

const firstLine = (text = '') => text.split('\n')[0] ?? ''

/**
 * Runs every test whose name has an id, or reads what an earlier run has written into `results`. A file that
 * does not run fails the lines that stand in it.
 */
export async function testEvidence(results?: string): Promise<readonly Evidence[]> {
  const named = filesThatName()
  const { testResults } =
    results === undefined
      ? await runVitest([...named.keys()])
      : Results.parse(JSON.parse(readFileSync(results, 'utf8')))
  return testResults.flatMap(({ name, message, assertionResults }): Evidence[] => {
    const file = relative(root, name)
    if (assertionResults.length === 0) {
      const reason = firstLine(message) || 'it does not run'
      return (named.get(file) ?? []).map((id) => ({ id, by: file, outcome: 'failed', reason }))
    }
    return assertionResults.flatMap(({ fullName, status, failureMessages }): Evidence[] => {
      const by = `${file} › ${fullName}`
      if (status === 'passed') return idsIn(fullName).map((id) => ({ id, by, outcome: 'passed' }))
      if (status !== 'failed') return []
      const reason = firstLine(failureMessages?.[0])
      return idsIn(fullName).map((id) => ({ id, by, outcome: 'failed', reason }))
    })
  })
}
