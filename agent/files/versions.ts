// A set of files that changes as one. Each version is a folder of its own that is never written again; the link
// `current` names the newest and is replaced by rename. The version before it stays for those who still read it.
import { randomBytes } from 'node:crypto'
import {
  chmod,
  lstat,
  mkdir,
  open,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  symlink,
} from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { errnoOf } from '../../runtime/errno.ts'
import { hasCode, IdentityError } from '../../spiffe/errors.ts'

/** One file as it is wanted. Bytes are made only when what is there is not the same. */
export interface WantedFile {
  readonly name: string
  readonly mode: number
  readonly content: () => Uint8Array
  /** whether what a file holds is as good as `content()` */
  readonly isAsGood: (existing: Buffer) => boolean
}

export interface Owner {
  /** undefined: as the process */
  readonly uid: number | undefined
  readonly gid: number | undefined
}

export interface Place {
  readonly folder: string
  readonly owner: Owner
}

/** What is about to be done, for a test that stops there. */
export type Step =
  | 'make the folder'
  | 'write a file'
  | 'sync a file'
  | 'open the folder'
  | 'replace the link'
  | 'sync the link'
  | 'remove what is old'

export interface PublishOptions {
  /** called before each step; what it throws is what the step has thrown */
  readonly between?: Between | undefined
}

export interface Published {
  /** the name of the folder that `current` leads to */
  readonly version: string
  readonly isNew: boolean
}

const link = 'current'
const told = '.told'
const numberOf = (name: string) => Number(/^v([1-9]\d{0,14})$/.exec(name)?.[1] ?? Number.NaN)

/** Reads a link of ours; undefined when there is none. Throws ERR_PRECONDITION for anything else there. */
async function linked(folder: string, name: string): Promise<number | undefined> {
  const path = join(folder, name)
  try {
    const number = numberOf(await readlink(path))
    if (!Number.isNaN(number)) return number
  } catch (error) {
    const errno = errnoOf(error)
    if (errno === 'ENOENT') return undefined
    if (errno !== 'EINVAL') throw error
  }
  throw new IdentityError(
    'ERR_PRECONDITION',
    `${path} was not made by this program; move it away, or name another folder`,
  )
}

async function sync(path: string): Promise<void> {
  await using handle = await open(path, 'r')
  await handle.sync()
}

async function replaceLink(folder: string, name: string, target: string): Promise<void> {
  const aside = join(folder, `.${name}.${randomBytes(6).toString('hex')}`)
  await symlink(target, aside)
  await rename(aside, join(folder, name))
}

/** A folder is as open as the most open of its files, and no more. */
function folderModeOf(files: readonly WantedFile[]): number {
  const open = files.reduce((bits, { mode }) => bits | mode, 0)
  return 0o700 | (open & 0o040 ? 0o050 : 0) | (open & 0o004 ? 0o005 : 0)
}

async function hasMode(path: string, mode: number, { uid, gid }: Owner): Promise<boolean> {
  const stat = await lstat(path)
  return (
    (stat.mode & 0o7777) === mode &&
    !stat.isSymbolicLink() &&
    (uid === undefined || stat.uid === uid) &&
    (gid === undefined || stat.gid === gid)
  )
}

/** Whether a version has these files, with this content, of this owner, and no others. */
async function isSame(at: string, files: readonly WantedFile[], owner: Owner): Promise<boolean> {
  try {
    const names = await readdir(at)
    if (names.length !== files.length) return false
    if (!(await hasMode(at, folderModeOf(files), owner))) return false
    for (const { name, mode, isAsGood } of files) {
      const path = join(at, name)
      if (!(await hasMode(path, mode, owner)) || !isAsGood(await readFile(path))) return false
    }
    return true
  } catch {
    // what cannot be read is not as it should be
    return false
  }
}

const given = ({ uid = -1, gid = -1 }: Owner) => [uid, gid] as const

type Between = (step: Step) => void

async function writeFile(path: string, file: WantedFile, owner: Owner, between: Between) {
  between('write a file')
  await using handle = await open(path, 'wx', 0o600)
  await handle.writeFile(file.content())
  await handle.chown(...given(owner))
  await handle.chmod(file.mode)
  between('sync a file')
  await handle.sync()
}

async function writeVersion(
  at: string,
  files: readonly WantedFile[],
  owner: Owner,
  between: Between,
): Promise<void> {
  between('make the folder')
  await mkdir(at, { mode: 0o700 })
  for (const file of files) await writeFile(join(at, file.name), file, owner, between)
  between('open the folder')
  await using handle = await open(at, 'r')
  await handle.chown(...given(owner))
  // last: before it is whole, nobody else has a look
  await handle.chmod(folderModeOf(files))
  await handle.sync()
}

/** Removes what was begun and not finished, and versions older than the one before `current`. */
async function tidy(folder: string, current: number): Promise<void> {
  const names = await readdir(folder)
  const before = Math.max(0, ...names.map(numberOf).filter((number) => number < current))
  for (const name of names) {
    const number = numberOf(name)
    const isVersion = !Number.isNaN(number) && number !== current && number !== before
    const isAside = /^\.(current|\.told)\.[0-9a-f]{12}$/.test(name)
    if (isVersion || isAside) await rm(join(folder, name), { recursive: true, force: true })
  }
}

/** Whoever the files are for has to come by; what is private lies in folders of its own. */
async function makeFolder(folder: string): Promise<void> {
  const first = await mkdir(folder, { recursive: true })
  if (first === undefined) return
  // whatever the umask
  for (let at = folder; at.length >= first.length; at = dirname(at)) await chmod(at, 0o755)
}

/** What people call it; the cause names it. */
const reasons: Readonly<Record<string, string>> = {
  ENOSPC: 'the disk is full',
  EDQUOT: 'the disk quota is used up',
  EROFS: 'the disk is mounted read-only',
  EACCES: 'this process may not write there',
  EPERM: 'this process may not do that',
}

function troubleOf(folder: string, cause: unknown): IdentityError {
  if (hasCode(cause)) return cause
  const reason = reasons[errnoOf(cause)] ?? 'its files could not be written'
  const message = `${folder} could not be brought up to date: ${reason}`
  return new IdentityError('ERR_UNAVAILABLE', message, { cause })
}

/** Throws after it has taken away what it began. */
async function bringIn(
  { folder, owner }: Place,
  version: string,
  files: readonly WantedFile[],
  between: Between,
): Promise<void> {
  const at = join(folder, version)
  try {
    await writeVersion(at, files, owner, between)
    await sync(folder)
    between('replace the link')
    await replaceLink(folder, link, version)
  } catch (error) {
    await rm(at, { recursive: true, force: true })
    throw error
  }
}

/**
 * Makes `files` the current version, or finds that they are. Whatever fails, or is killed: `current` leads to
 * the whole old set, or to the whole new one. Throws ERR_UNAVAILABLE with what failed, ERR_PRECONDITION.
 */
export async function publish(
  place: Place,
  files: readonly WantedFile[],
  { between = () => {} }: PublishOptions = {},
): Promise<Published> {
  const { folder, owner } = place
  try {
    await makeFolder(folder)
    const current = (await linked(folder, link)) ?? 0
    await tidy(folder, current)
    const version = `v${current}`
    if (current > 0 && (await isSame(join(folder, version), files, owner)))
      return { version, isNew: false }
    const next = `v${current + 1}`
    await bringIn(place, next, files, between)
    between('sync the link')
    await sync(folder)
    between('remove what is old')
    await tidy(folder, current + 1)
    return { version: next, isNew: true }
  } catch (error) {
    throw troubleOf(folder, error)
  }
}

/** Whether those who use the files were told of this version: it is remembered beside them. */
export async function wasTold(folder: string, version: string): Promise<boolean> {
  return (await linked(folder, told)) === numberOf(version)
}

export async function rememberTold(folder: string, version: string): Promise<void> {
  await replaceLink(folder, told, version)
}
