// What operators watch of a writer of files.
import { Gauge, Registry } from 'prom-client'
import type { FileWriter, SetStatus } from './writer.ts'

type Shown = Pick<FileWriter, 'status'>

/** Why a set is not as it should be; undefined when it is. */
export function problemOf({ folder, trouble, missing, untold }: SetStatus): string | undefined {
  const without = missing.length === 0 ? undefined : `without ${missing.join(', ')}`
  const problem = trouble ?? without ?? untold
  return problem === undefined ? undefined : `${folder}: ${problem}`
}

/** Registered with `registry`; read when it is asked. */
export function showFiles(registry: Registry, { status }: Shown): void {
  const gauge = (name: string, help: string, value: (set: SetStatus) => number) =>
    new Gauge({
      ...{ name, help, labelNames: ['folder'], registers: [registry] },
      collect() {
        for (const set of status()) this.set({ folder: set.folder }, value(set))
      },
    })
  gauge('castellan_files_good', '1 when the files are as they should be', (set) =>
    Number(problemOf(set) === undefined),
  )
  gauge(
    'castellan_files_expire_seconds',
    'when the certificate in the files ends, seconds since the epoch',
    ({ notAfter = 0 }) => notAfter / 1000,
  )
}

export function createFileMetrics(writer: Shown): Registry {
  const registry = new Registry()
  showFiles(registry, writer)
  return registry
}
