// Selectors of a process that systemd started: its unit, by the cgroup that systemd made for it, and the file
// that the unit is written in, by the folders that systemd reads.
import { lstat, realpath } from 'node:fs/promises'
import { errnoOf } from '../../runtime/errno.ts'
import type { Attestor } from './attestor.ts'
import { type Cgroup, parseCgroups } from './cgroup.ts'
import type { Proc } from './proc.ts'

export interface SystemdOptions {
  readonly proc: Proc
  /** the first that has a unit wins */
  readonly folders?: readonly string[]
}

/** systemd.unit(5), of the system's manager. */
const systemFolders = [
  '/etc/systemd/system.control',
  '/run/systemd/system.control',
  '/run/systemd/transient',
  '/run/systemd/generator.early',
  '/etc/systemd/system',
  '/etc/systemd/system.attached',
  '/run/systemd/system',
  '/run/systemd/system.attached',
  '/run/systemd/generator',
  '/usr/local/lib/systemd/system',
  '/usr/lib/systemd/system',
  '/lib/systemd/system',
  '/run/systemd/generator.late',
]

/** Those that can have processes. A backslash in a name is of the name: systemctl shows it too. */
const unitName = /^[A-Za-z0-9:_.\\@-]{1,249}\.(?:service|scope|socket|mount|swap)$/

/**
 * The unit of the system's manager: the outermost, as what is below it was named by its own processes.
 * Undefined for who has none.
 */
export function unitIn(cgroups: readonly Cgroup[]): string | undefined {
  // where both hierarchies are in use, systemd keeps its units in its own
  const cgroup =
    cgroups.find(({ controllers }) => controllers === 'name=systemd') ??
    cgroups.find(({ controllers }) => controllers === '')
  const name = cgroup?.segments.find((it) => it !== '..' && !it.endsWith('.slice'))
  // a leading underscore keeps a unit from having the name of a controller's file
  const unit = name?.replace(/^_/, '')
  return unit !== undefined && unitName.test(unit) ? unit : undefined
}

/** The unit itself, then the template that it is an instance of. */
function fileNames(unit: string): string[] {
  const [, prefix, type] = /^([^@]+@)[^@]+(\.[a-z]+)$/.exec(unit) ?? []
  return prefix === undefined || type === undefined ? [unit] : [unit, `${prefix}${type}`]
}

async function unless(missing: string, read: Promise<string>): Promise<string> {
  try {
    return await read
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return missing
    throw error
  }
}

async function isThere(path: string): Promise<boolean> {
  return lstat(path).then(
    () => true,
    () => false,
  )
}

/** Every path of the file that the unit is read from: as it was found, as it is linked to; none when masked. */
export async function fragmentPaths(
  unit: string,
  folders: readonly string[] = systemFolders,
): Promise<string[]> {
  for (const name of fileNames(unit)) {
    for (const folder of folders) {
      const found = `${folder}/${name}`
      if (!(await isThere(found))) continue
      const file = await unless('', realpath(found))
      if (file === '/dev/null' || file === '') return []
      const spellings = folders.map(async (other) => {
        const path = `${other}/${name}`
        return (await unless('', realpath(path))) === file ? [path] : []
      })
      return [...new Set([found, file, ...(await Promise.all(spellings)).flat()])]
    }
  }
  return []
}

export function createSystemdAttestor({ proc, folders = systemFolders }: SystemdOptions): Attestor {
  return {
    type: 'systemd',
    async attest({ pid }, demand) {
      const unit = unitIn(parseCgroups(proc.text(pid, 'cgroup')))
      if (unit === undefined) return { selectors: new Set(), missing: [] }
      const id = `systemd:id:${unit}`
      if (!demand.kind('systemd:fragment_path')) return { selectors: new Set([id]), missing: [] }
      const paths = await fragmentPaths(unit, folders)
      return {
        selectors: new Set([id, ...paths.map((path) => `systemd:fragment_path:${path}`)]),
        missing: paths.length > 0 ? [] : [`systemd:fragment_path (no unit file of ${unit})`],
      }
    },
  }
}
