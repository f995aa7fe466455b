// What all long-running commands share: logs, and a life that ends with Ctrl-C, kill, or with the parent.
import { createLog, type Log } from '../runtime/log.ts'
import type { Context } from './context.ts'

export const lifeOption = [
  '--exit-with-stdin',
  'stop when standard input ends (for programs that start this one)',
] as const

export function logFor(name: string, level: string): Log {
  return createLog({ name, level })
}

/** Resolves when the program is to stop; rejects when `failed` does. */
export async function untilStopped(
  { process, signal }: Context,
  {
    withStdin,
    failed = new Promise<never>(() => {}),
  }: { withStdin: boolean; failed?: Promise<unknown> },
): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  if (signal.aborted) return
  signal.addEventListener('abort', () => resolve(), { once: true })
  if (withStdin)
    process.stdin
      .once('end', () => resolve())
      .once('error', () => resolve())
      .resume()
  try {
    await Promise.race([promise, failed])
  } finally {
    // an open pipe keeps the process alive
    if (withStdin) process.stdin.destroy()
  }
}
