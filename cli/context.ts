// What a command may touch of its process, as one value.
import type { Writable } from 'node:stream'

export interface CliProcess {
  readonly argv: readonly string[]
  readonly env: Readonly<Record<string, string | undefined>>
  readonly stdout: Writable & { readonly isTTY?: boolean; readonly columns?: number }
  readonly stderr: Writable
  readonly stdin: NodeJS.ReadStream
  readonly pid: number
  readonly execPath: string
  once(event: 'SIGINT' | 'SIGTERM', listener: () => void): unknown
}

export interface Context {
  readonly process: CliProcess
  /** aborted by Ctrl-C and kill; a second one ends the process at once */
  readonly signal: AbortSignal
  /** `-o json`: one JSON value on standard output, nothing else */
  readonly isJson: boolean
}

export type ExitCode = 0 | 1 | 2 | 3 | 4

/** Prints one value: as JSON for programs, or as the text that `people` makes of it. */
export function answer(context: Context, value: unknown, people: () => string): void {
  const { stdout } = context.process
  const text = context.isJson
    ? JSON.stringify(value, (_, part: unknown) => (typeof part === 'bigint' ? Number(part) : part))
    : people()
  if (text !== '') stdout.write(`${text}\n`)
}

/** Columns as wide as they have to be; the first row is the heading. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0)))
  return rows
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}
