// The proxy specs of this node: read at the start, and again when they are edited. A broken edit changes nothing.
import { readFileSync, watch } from 'node:fs'
import { dirname } from 'node:path'
import { loadProxySpec, type ProxySpec } from '../../proxy-spec/spec.ts'
import type { Clock } from '../../runtime/clock.ts'
import { createLatest, createTopic, type Running, run } from '../../runtime/lifecycle.ts'
import type { Log } from '../../runtime/log.ts'
import { explain, hasCode, IdentityError } from '../../spiffe/errors.ts'
import type { SpiffeId } from '../../spiffe/id.ts'
import type { DrivenProxies, DriverName } from './config.ts'

/** A spec that a driver can do whole. */
export interface DrivenSpec {
  readonly file: string
  readonly driver: DriverName
  readonly spec: ProxySpec
  readonly identity: SpiffeId
  /** whether the agent is asked even where the proxy could decide alone */
  readonly asksAlways: boolean
  /** why the newest edit is not in force; empty when it is */
  readonly trouble: string
}

export interface Specs extends AsyncDisposable {
  current(): readonly DrivenSpec[]
  onChange(listener: () => void): Disposable
}

export interface SpecsOptions {
  readonly proxies: DrivenProxies
  /** Throws ERR_CONFIG with what its driver cannot do. */
  readonly demand: (spec: ProxySpec, driver: DriverName) => void
  readonly clock: Clock
  readonly log: Log
}

/** milliseconds: what file events miss is found then */
const look = 2000
/** most editors empty a file before they write it */
const settle = 50

/** What is wrong with a spec is said with its file. Throws what `check` throws. */
export function inFile(file: string, check: () => void): void {
  try {
    check()
  } catch (error) {
    if (!hasCode(error, 'ERR_CONFIG')) throw error
    const fields = error.fields.map((it) => ({ ...it, field: `${file} ${it.field}` }))
    throw new IdentityError('ERR_CONFIG', `${file} ${error.message}`, { fields })
  }
}

type Named = Pick<DrivenSpec, 'file' | 'driver' | 'asksAlways'>

function read(named: Named, demand: SpecsOptions['demand']): DrivenSpec {
  const { file, driver } = named
  const spec = loadProxySpec(file)
  const { identity } = spec
  if (identity === undefined) {
    const problem = 'name it: by its identity a proxy is known, whatever it says of itself'
    throw new IdentityError('ERR_CONFIG', `${file}: identity is missing: ${problem}`, {
      fields: [{ field: 'identity', problem: `is missing: ${problem}` }],
    })
  }
  inFile(file, () => demand(spec, driver))
  return { ...named, spec, identity, trouble: '' }
}

function demandDistinct(all: readonly DrivenSpec[]): void {
  for (const [i, { identity, file }] of all.entries()) {
    const first = all.slice(0, i).find((it) => it.identity === identity)
    if (first === undefined) continue
    throw new IdentityError('ERR_CONFIG', `${file}: ${identity} has a spec already: ${first.file}`)
  }
}

const textOf = (file: string): string => {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return ''
  }
}

/** Throws ERR_CONFIG for what cannot be read at the start. */
export function followSpecs({ proxies, demand, clock, log }: SpecsOptions): Specs {
  const topic = createTopic<void>()
  let current = proxies.map(({ spec: file, driver, decisions }) =>
    read({ file, driver, asksAlways: decisions === 'agent' }, demand),
  )
  demandDistinct(current)
  const texts = new Map(current.map(({ file }) => [file, textOf(file)]))

  function take(next: DrivenSpec): void {
    current = current.map((it) => (it.file === next.file ? next : it))
    topic.publish()
  }

  function takeEdit(before: DrivenSpec): void {
    const { file } = before
    try {
      const next = read(before, demand)
      demandDistinct(current.map((it) => (it.file === file ? next : it)))
      take(next)
      log.info({ file }, 'proxy spec in force')
    } catch (error) {
      if (!hasCode(error, 'ERR_CONFIG')) throw error
      log.error({ file, problem: explain(error) }, 'proxy spec refused; the former stays')
      take({ ...before, trouble: explain(error) })
    }
  }

  async function lookAgain(signal: AbortSignal): Promise<void> {
    for (const it of current) {
      const text = textOf(it.file)
      if (text === texts.get(it.file)) continue
      await clock.sleep(settle, { signal })
      if (textOf(it.file) !== text) return
      texts.set(it.file, text)
      takeEdit(it)
    }
  }

  const running = run(async (signal) => {
    using wake = createLatest<true>(signal)
    using watchers = new DisposableStack()
    for (const folder of new Set(proxies.map(({ spec }) => dirname(spec)))) {
      const watcher = watchers.adopt(
        watch(folder, () => wake.push(true)),
        (it) => it.close(),
      )
      watcher.on('error', () => wake.push(true))
    }
    await using _ = ticking(clock, () => wake.push(true))
    for await (const __ of wake) await lookAgain(signal)
  })

  return {
    current: () => current,
    onChange: (listener) => topic.subscribe(listener),
    [Symbol.asyncDispose]: () => running[Symbol.asyncDispose](),
  }
}

function ticking(clock: Clock, tick: () => void): Running {
  return run(async (signal) => {
    while (!signal.aborted) {
      await clock.sleep(look, { signal })
      tick()
    }
  })
}
