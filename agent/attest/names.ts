// Names of users and groups, from this machine's files.
import { readFileSync, statSync } from 'node:fs'
import { IdentityError } from '../../spiffe/errors.ts'

export interface Names {
  /** undefined when nobody has that number. Throws when the file cannot be read. */
  user(uid: number): string | undefined
  group(gid: number): string | undefined
}

export interface NamesOptions {
  readonly passwd?: string
  readonly group?: string
}

const largestFile = 8n * 1024n * 1024n

/** `name:password:number:…`; of two names for one number the first counts. */
export function numbersIn(text: string): ReadonlyMap<number, string> {
  const names = new Map<number, string>()
  for (const line of text.split('\n')) {
    const [, name, number] = /^([^:\s+#-][^:\s]*):[^:]*:(\d{1,10})(?::|$)/.exec(line) ?? []
    if (name === undefined || number === undefined) continue
    if (!names.has(Number(number))) names.set(Number(number), name)
  }
  return names
}

/** Reads the file again when it was changed. */
function follow(file: string): () => ReadonlyMap<number, string> {
  let version = ''
  let names: ReadonlyMap<number, string> = new Map()
  return () => {
    const { ino, size, mtimeNs, ctimeNs } = statSync(file, { bigint: true })
    const now = [ino, size, mtimeNs, ctimeNs].join()
    if (now === version) return names
    if (size > largestFile) throw new IdentityError('ERR_TOO_LARGE', `${file} is over 8 MiB`)
    names = numbersIn(readFileSync(file, 'utf8'))
    version = now
    return names
  }
}

export function createNames({
  passwd = '/etc/passwd',
  group = '/etc/group',
}: NamesOptions = {}): Names {
  const [users, groups] = [follow(passwd), follow(group)]
  return { user: (uid) => users().get(uid), group: (gid) => groups().get(gid) }
}
