// What a command is given to read: files, and standard input as `-`.
import { createReadStream } from 'node:fs'
import { addAbortSignal, type Readable } from 'node:stream'
import { errnoOf } from '../runtime/errno.ts'
import { hasCode, IdentityError } from '../spiffe/errors.ts'
import type { Context } from './context.ts'

/** Reads one file after the other, each whole. Throws ERR_BAD_REQUEST naming it. */
export type ReadInput = (file: string) => Promise<string>

const largest = 16 * 1024 * 1024
const utf8 = new TextDecoder('utf-8', { fatal: true })

async function bytesOf(stream: Readable): Promise<Buffer> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of stream) {
    const bytes = Buffer.from(chunk)
    size += bytes.length
    if (size > largest)
      throw new IdentityError('ERR_BAD_REQUEST', `it has more than ${largest} bytes`)
    chunks.push(bytes)
  }
  return Buffer.concat(chunks)
}

export function createInput({ process: { stdin }, signal }: Context): ReadInput {
  let isStdinTaken = false

  return async (file) => {
    if (file === '-' && isStdinTaken)
      throw new IdentityError('ERR_BAD_REQUEST', 'standard input (-) can be read only once')
    isStdinTaken ||= file === '-'
    const stream = addAbortSignal(signal, file === '-' ? stdin : createReadStream(file))
    try {
      return utf8.decode(await bytesOf(stream))
    } catch (cause) {
      if (signal.aborted) throw new IdentityError('ERR_CANCELLED', 'stopped', { cause })
      const why = hasCode(cause) ? cause.message : errnoOf(cause)
      throw new IdentityError('ERR_BAD_REQUEST', `cannot read ${file} (${why})`)
    }
  }
}
