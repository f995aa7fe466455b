// Whom files may be given to: users and groups of this machine, as far as this process may give something away.
import { readFileSync } from 'node:fs'

export interface Accounts {
  /** The number of a user, by name or number; undefined when there is none of that name. */
  user(name: string): number | undefined
  group(name: string): number | undefined
  /** Why this process cannot give files to them; undefined when it can. */
  whyNot(uid: number | undefined, gid: number | undefined): string | undefined
}

interface Self {
  readonly uid: number
  readonly groups: readonly number[]
  /** may give files to anybody: root, or CAP_CHOWN */
  readonly mayGive: boolean
}

export interface AccountsOptions {
  readonly passwd?: string
  readonly group?: string
  readonly self?: () => Self
}

const chown = 1n

function selfOf(): Self {
  const status = readFileSync('/proc/self/status', 'utf8')
  const field = (name: string) => new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(status)?.[1] ?? ''
  const ids = (name: string) => field(name).split(/\s+/).filter(Boolean).map(Number)
  // real, effective, saved, of the file system: the last one owns what is made
  const [uid = -1, gid = -1] = [ids('Uid').at(-1), ids('Gid').at(-1)]
  return {
    uid,
    groups: [gid, ...ids('Groups')],
    mayGive: (BigInt(`0x0${field('CapEff')}`) & chown) === chown,
  }
}

/** `name:password:number:…`; of two lines with one name the first counts. */
function numberIn(file: string, name: string): number | undefined {
  if (/^\d{1,10}$/.test(name)) return Number(name)
  const line = readFileSync(file, 'utf8')
    .split('\n')
    .find((it) => it.startsWith(`${name}:`))
  const number = line?.split(':')[2] ?? ''
  return /^\d{1,10}$/.test(number) ? Number(number) : undefined
}

export function createAccounts(options: AccountsOptions = {}): Accounts {
  const { passwd = '/etc/passwd', group = '/etc/group', self = selfOf } = options
  return {
    user: (name) => numberIn(passwd, name),
    group: (name) => numberIn(group, name),
    whyNot(uid, gid) {
      if (uid === undefined && gid === undefined) return undefined
      const { uid: own, groups, mayGive } = self()
      if (mayGive) return undefined
      if (uid !== undefined && uid !== own)
        return `only root can give files to another user, and this process runs as ${own}`
      if (gid !== undefined && !groups.includes(gid))
        return `this process (user ${own}) is not in group ${gid}; only root can give files to any group`
      return undefined
    },
  }
}
