// /proc/PID/cgroup and the cgroup mounts of /proc/PID/mountinfo, read. Pure.
import { IdentityError } from '../../spiffe/errors.ts'

/** The cgroup of a process in one hierarchy. */
export interface Cgroup {
  /** `` in the hierarchy of version 2, else such as `cpu,cpuacct` or `name=systemd` */
  readonly controllers: string
  /** of its path; none is the root, `..` leads out of this agent's own cgroup namespace */
  readonly segments: readonly string[]
}

const segmentsOf = (path: string) => path.split('/').filter((segment) => segment !== '')

/** Throws on a line that is not of the form that cgroups(7) promises. */
export function parseCgroups(text: string): Cgroup[] {
  const lines = text.split('\n').filter((line) => line !== '')
  return lines.map((line) => {
    const [, controllers, path] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? []
    if (controllers === undefined || path === undefined)
      throw new IdentityError('ERR_RUNTIME', 'a line of /proc/PID/cgroup that is not one')
    return { controllers, segments: segmentsOf(path) }
  })
}

/** The kernel writes blanks and backslashes in octal. */
const unescaped = (text: string) =>
  text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(parseInt(digits, 8)))

/** The cgroups that are mounted for a process, by the parts of their hierarchies that it is shown. */
export function cgroupMounts(mountinfo: string): Cgroup[] {
  return mountinfo.split('\n').flatMap((line) => {
    const [fields = '', type = ''] = line.split(' - ', 2)
    const [fileSystem] = type.split(' ', 1)
    const root = fields.split(' ')[3]
    if (root === undefined || (fileSystem !== 'cgroup' && fileSystem !== 'cgroup2')) return []
    return [{ controllers: fileSystem, segments: segmentsOf(unescaped(root)) }]
  })
}
