// castellan svid write: keeps this process's SVIDs in files, for programs that cannot ask for them.
import { z } from 'zod'
import type { FileWriter, SetStatus } from '../../agent/files/writer.ts'
import { endpointFrom } from '../../client/endpoint.ts'
import { systemClock } from '../../runtime/clock.ts'
import { duration } from '../../runtime/config.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import { answer, type Context, type ExitCode, table } from '../context.ts'
import { flag, optionsOf, type Register, text } from '../register.ts'
import { lifeOption, logFor, untilStopped } from '../run.ts'

const options = z.object({ config: text, once: flag, timeout: duration, exitWithStdin: flag })

type ProblemOf = (set: SetStatus) => string | undefined

function plain({ folder, id, version, notAfter, missing }: SetStatus) {
  const expiresAt = notAfter === undefined ? '' : new Date(notAfter).toISOString()
  return { folder, spiffeId: id ?? '', version: version ?? '', expiresAt, missing }
}

/** Resolves with true once all sets are as they should be, with false when it is late. */
async function untilGood(
  writer: FileWriter,
  problemOf: ProblemOf,
  signal: AbortSignal,
): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>()
  const look = () => {
    if (writer.status().every((set) => problemOf(set) === undefined)) resolve(true)
  }
  using _ = writer.onChange(look)
  signal.addEventListener('abort', () => resolve(false), { once: true })
  look()
  if (signal.aborted) resolve(false)
  return await promise
}

const whatNext = '\n  castellan svid fetch x509, as the same user, says what to register'

/** The answer of `--once`. Throws ERR_NO_IDENTITY or ERR_DEADLINE when the time is over. */
async function writeOnce(
  context: Context,
  writer: FileWriter,
  { timeout, problemOf }: { readonly timeout: number; readonly problemOf: ProblemOf },
): Promise<ExitCode> {
  const signal = AbortSignal.any([context.signal, AbortSignal.timeout(timeout)])
  const isGood = await untilGood(writer, problemOf, signal)
  const sets = writer.status()
  if (!isGood) {
    const problems = `not written: ${sets.flatMap((it) => problemOf(it) ?? []).join('; ')}`
    if (!sets.some((it) => it.isRefused)) throw new IdentityError('ERR_DEADLINE', problems)
    throw new IdentityError('ERR_NO_IDENTITY', `${problems}${whatNext}`)
  }
  const rows = sets.map(plain)
  answer(context, rows, () =>
    table([
      ['FOLDER', 'ID', 'VERSION', 'EXPIRES'],
      ...rows.map((it) => [it.folder, it.spiffeId, it.version, it.expiresAt]),
    ]),
  )
  return 0
}

async function write(context: Context, given: z.infer<typeof options>): Promise<ExitCode> {
  // loaded here: the other verbs need none of it
  const { loadWriteConfig } = await import('../../agent/files/write-config.ts')
  const { startWorkloadApiMaterial } = await import('../../agent/files/of-workload-api.ts')
  const { startFileWriter } = await import('../../agent/files/writer.ts')
  const { createFileMetrics, problemOf } = await import('../../agent/files/metrics.ts')
  const { startOperations } = await import('../../runtime/http.ts')
  const { sets, workloadApi, operations, logLevel } = loadWriteConfig(given.config)
  const endpoint = endpointFrom(workloadApi, context.process.env)
  const log = logFor('svid-write', logLevel)
  const clock = systemClock
  await using stack = new AsyncDisposableStack()
  const source = stack.use(startWorkloadApiMaterial(endpoint, { sets, clock }))
  const writer = stack.use(startFileWriter({ sets, source, clock, log }))
  if (given.once === true)
    return await writeOnce(context, writer, { timeout: given.timeout, problemOf })
  const notReady = async () =>
    writer
      .status()
      .map(problemOf)
      .find((it) => it !== undefined)
  const metrics = createFileMetrics(writer)
  if (operations !== undefined)
    stack.use(await startOperations({ listen: operations, notReady, metrics }))
  const { exitWithStdin = false } = given
  await untilStopped(context, { withStdin: exitWithStdin, failed: writer.done })
  return 0
}

export function svidWriteCommand(register: Register): void {
  register({
    noun: 'svid',
    verb: 'write',
    about:
      'Keeps SVIDs and bundles in files until it is stopped, for programs that cannot ask for them: docs/files.md.',
    options: [
      ['-c, --config <file>', 'what is written where', 'files.yaml'],
      ['--once', 'end when everything is written; 1 when there is no identity'],
      ['--timeout <duration>', 'how long --once waits', '60s'],
      lifeOption,
    ],
    run: (context, given) => write(context, optionsOf(given, options)),
  })
}
