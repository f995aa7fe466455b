// Keeps sets of files as new as what they are made of: one loop for each set, so that none waits for another.
import { createBackoff } from '../../runtime/backoff.ts'
import { type Clock, sleepUntil } from '../../runtime/clock.ts'
import { createLatest, createTopic, type Running, run } from '../../runtime/lifecycle.ts'
import type { Log } from '../../runtime/log.ts'
import { explain, hasCode, IdentityError } from '../../spiffe/errors.ts'
import type { SpiffeId } from '../../spiffe/id.ts'
import type { FileSet } from './config.ts'
import { filesOf } from './forms.ts'
import { type Material, type MaterialSource, versionOf, wantOf } from './material.ts'
import { tell } from './tell.ts'
import { publish, rememberTold, wasTold } from './versions.ts'

/** How a set stands. */
export interface SetStatus {
  readonly folder: string
  /** of what is written; undefined before the first time */
  readonly id: SpiffeId | undefined
  /** milliseconds since the epoch */
  readonly notAfter: number | undefined
  /** the name of the version that `current` leads to */
  readonly version: string | undefined
  /** why the newest state is not in the files; undefined when it is */
  readonly trouble: string | undefined
  /** the identity is not given: waiting alone does not help */
  readonly isRefused: boolean
  /** files that are left out, and why, in words */
  readonly missing: readonly string[]
  /** why its users were not told of the newest version; undefined when they were */
  readonly untold: string | undefined
}

export interface FileWriter extends Running {
  status(): readonly SetStatus[]
  onChange(listener: () => void): Disposable
}

export interface FileWriterOptions {
  readonly sets: readonly FileSet[]
  readonly source: MaterialSource
  readonly clock: Clock
  readonly log: Log
}

interface Writing extends Omit<FileWriterOptions, 'sets'> {
  readonly set: FileSet
  readonly changed: () => void
}

const notYet: Omit<SetStatus, 'folder'> = {
  id: undefined,
  notAfter: undefined,
  version: undefined,
  trouble: 'not written yet',
  isRefused: false,
  missing: [],
  untold: undefined,
}

/** What became of a set, in the status and in the log: each trouble once. */
function createStanding({ set: { folder, notify }, log, changed }: Writing) {
  let status: SetStatus = { folder, ...notYet }

  function become(next: Partial<SetStatus>): void {
    status = { ...status, ...next }
    changed()
  }

  return {
    status: () => status,
    stands({ id, notAfter }: Material, version: string, missing: readonly string[]): void {
      const isSame = missing.join() === status.missing.join()
      if (!isSame && missing.length > 0) log.warn({ folder, missing }, 'files are left out')
      const isNews = notify !== undefined && version !== status.version
      const untold = isNews ? 'not told yet' : status.untold
      become({ id, notAfter, version, missing, untold, trouble: undefined, isRefused: false })
    },
    wrote({ id, notAfter }: Material, version: string): void {
      log.info({ folder, spiffeId: id, version, notAfter: new Date(notAfter) }, 'files written')
    },
    failed(error: unknown): void {
      const trouble = explain(error)
      if (trouble === status.trouble) return
      // at first there is nothing yet, which is no failure
      if (status.version === undefined) log.warn({ folder, err: error }, 'no files yet')
      else log.error({ folder, err: error }, 'files are not up to date; those that are there stay')
      become({ trouble, isRefused: hasCode(error, 'ERR_NO_IDENTITY') })
    },
    told(): void {
      if (status.untold !== undefined) become({ untold: undefined })
    },
    untold(error: unknown): void {
      log.error(
        { folder, err: error },
        'who uses the files was not told; next time is the next change',
      )
      become({ untold: explain(error) })
    },
  }
}

type Standing = ReturnType<typeof createStanding>

/** Tells who is to be told, unless that was done; its failure is noted and changes nothing. */
async function tellOnce(
  { set: { folder, notify }, clock }: Writing,
  version: string,
  standing: Standing,
  signal: AbortSignal,
): Promise<void> {
  if (notify === undefined) return
  try {
    if (!(await wasTold(folder, version))) {
      await tell(notify, { clock, signal })
      await rememberTold(folder, version)
    }
    standing.told()
  } catch (error) {
    if (!signal.aborted) standing.untold(error)
  }
}

/** Brings a set up to date, as often as it is called; what is there already is not looked at again. */
function createUpdate(writing: Writing, standing: Standing) {
  const { set, source } = writing
  const want = wantOf(set)
  let last: { readonly of: string; readonly version: string; readonly without: readonly string[] } =
    {
      ...{ of: '', version: '', without: [] },
    }

  async function write(material: Material, signal: AbortSignal): Promise<void> {
    const { files, missing } = await filesOf(set, material)
    if (files.length === 0)
      throw new IdentityError('ERR_UNAVAILABLE', `nothing to write: ${material.lacking.join()}`)
    const { version, isNew } = await publish({ folder: set.folder, owner: ownerOf(set) }, files)
    if (isNew) standing.wrote(material, version)
    last = { of: versionOf(material), version, without: missing }
    standing.stands(material, version, [...missing, ...material.lacking])
    await tellOnce(writing, version, standing, signal)
  }

  /** Returns when to look again, in milliseconds since the epoch. */
  return async (signal: AbortSignal): Promise<number> => {
    const material = await source.now(want, { signal })
    if (versionOf(material) !== last.of) await write(material, signal)
    else standing.stands(material, last.version, [...last.without, ...material.lacking])
    return material.until
  }
}

const ownerOf = ({ owner, group }: FileSet) => ({ uid: owner, gid: group })

async function follow(writing: Writing, standing: Standing, signal: AbortSignal): Promise<void> {
  const { source, clock } = writing
  const update = createUpdate(writing, standing)
  const backoff = createBackoff({ first: 500, cap: 30_000 })
  using wake = createLatest<true>(signal)
  const ring = () => wake.push(true)
  using _source = source.onChange(ring)
  let alarm = new AbortController()

  /** When to look again, in milliseconds since the epoch. */
  async function step(): Promise<number> {
    try {
      const until = await update(signal)
      backoff.reset()
      return until
    } catch (error) {
      if (!signal.aborted) standing.failed(error)
      return clock.now() + backoff.next()
    }
  }

  ring()
  for await (const __ of wake) {
    alarm.abort()
    alarm = new AbortController()
    const until = await step()
    const either = AbortSignal.any([signal, alarm.signal])
    if (Number.isFinite(until)) sleepUntil(clock, until, { signal: either }).then(ring, () => {})
  }
  alarm.abort()
}

/** Writes each set when there is something to write, and again after each change, until disposed. */
export function startFileWriter({ sets, ...options }: FileWriterOptions): FileWriter {
  const topic = createTopic<void>()
  const all = sets.map((set) => {
    const writing = { ...options, set, changed: () => topic.publish() }
    return { writing, standing: createStanding(writing) }
  })
  const loop = run(async (signal) => {
    await Promise.all(all.map(({ writing, standing }) => follow(writing, standing, signal)))
  })
  return {
    ...loop,
    status: () => all.map(({ standing }) => standing.status()),
    onChange: (listener) => topic.subscribe(listener),
  }
}
