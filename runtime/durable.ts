// Files that are whole or not there: temporary file, fsync, rename, fsync of the folder.
import { randomBytes } from 'node:crypto'
import {
  chmodSync,
  closeSync,
  copyFileSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs'
import { open } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'

const nameAside = (path: string) => `.${basename(path)}.${randomBytes(6).toString('hex')}`
const isNameAside = (name: string) => /^\..+\.[0-9a-f]{12}$/.test(name)
const besides = (path: string) => join(dirname(path), nameAside(path))

/** Takes away what processes that were killed had begun to write in `folder`; nobody else may write there now. */
export function removeUnfinished(folder: string): void {
  for (const name of readdirSync(folder))
    if (isNameAside(name)) rmSync(join(folder, name), { force: true })
}

/** Replaces `path` by `content` in one step; survives a power cut on either side of it. */
export function writeDurably(
  path: string,
  content: Uint8Array | string,
  { mode }: { mode: number },
): void {
  const aside = besides(path)
  const bytes = typeof content === 'string' ? Buffer.from(content) : content
  const file = openSync(aside, 'wx', mode)
  try {
    for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at)
    fsyncSync(file)
    renameSync(aside, path)
  } catch (error) {
    rmSync(aside, { force: true })
    throw error
  } finally {
    closeSync(file)
  }
  sync(dirname(path))
}

/** A copy at a path that nobody uses yet, of any size. */
export function copyDurably(from: string, to: string, { mode }: { mode: number }): void {
  copyFileSync(from, to)
  chmodSync(to, mode)
  sync(to)
}

/** As `writeDurably` for content that comes in pieces; what was written is taken away when they end early. */
export async function writeStreamDurably(
  path: string,
  pieces: AsyncIterable<Uint8Array>,
  { mode }: { mode: number },
): Promise<void> {
  const aside = besides(path)
  const file = await open(aside, 'wx', mode)
  try {
    for await (const piece of pieces) await file.writeFile(piece)
    await file.sync()
    renameSync(aside, path)
  } catch (error) {
    rmSync(aside, { force: true })
    throw error
  } finally {
    await file.close()
  }
  sync(dirname(path))
}

/** Of a file what is in it is on the disk then, of a folder which files it has. */
export function sync(path: string): void {
  const handle = openSync(path, 'r')
  try {
    fsyncSync(handle)
  } finally {
    closeSync(handle)
  }
}

/** Makes a folder that only its owner can enter; leaves an existing one as it is. */
export function privateFolder(path: string): void {
  mkdirSync(path, { recursive: true, mode: 0o700 })
}
