// Files of others: of limited size, never waited for, and told of in errors by name alone.
import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { IdentityError } from '../spiffe/errors.ts'
import { errnoOf } from './errno.ts'

async function upTo(file: FileHandle, most: number): Promise<Buffer> {
  const bytes = Buffer.alloc(most + 1)
  let size = 0
  while (size < bytes.length) {
    const { bytesRead } = await file.read(bytes, size)
    if (bytesRead === 0) break
    size += bytesRead
  }
  return bytes.subarray(0, size)
}

/** All of a regular file of at most `most` bytes. Throws ERR_UNAVAILABLE, naming the file and the reason. */
export async function readBounded(path: string, most: number): Promise<Buffer> {
  const refusal = (why: string) =>
    new IdentityError('ERR_UNAVAILABLE', `cannot read ${path} (${why})`)
  try {
    // without it, opening a pipe waits for somebody who writes
    await using file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
    if (!(await file.stat()).isFile()) throw refusal('not a regular file')
    const bytes = await upTo(file, most)
    if (bytes.length > most) throw refusal(`over ${most} bytes`)
    return bytes
  } catch (error) {
    throw error instanceof IdentityError ? error : refusal(errnoOf(error))
  }
}
