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
  const folder = dirname(path)
  const aside = join(folder, nameAside(path))
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
  syncFolder(folder)
}

/** A copy at a path that nobody uses yet, of any size. */
export function copyDurably(from: string, to: string, { mode }: { mode: number }): void {
  copyFileSync(from, to)
  chmodSync(to, mode)
  const file = openSync(to, 'r')
  try {
    fsyncSync(file)
  } finally {
    closeSync(file)
  }
}

/** As `writeDurably` for content that comes in pieces; what was written is taken away when they end early. */
export async function writeStreamDurably(
  path: string,
  pieces: AsyncIterable<Uint8Array>,
  { mode }: { mode: number },
): Promise<void> {
  const aside = join(dirname(path), nameAside(path))
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
  syncFolder(dirname(path))
}

export function syncFolder(folder: string): void {
  const handle = openSync(folder, 'r')
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
