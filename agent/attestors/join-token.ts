// A join token from a file: good once.
import { readFileSync } from 'node:fs'
import { errnoOf } from '../../runtime/errno.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import type { NodeAttestor } from './attestor.ts'

function tokenFrom(path: string | undefined): string {
  if (path === undefined) {
    throw new IdentityError(
      'ERR_CONFIG',
      'this agent has no identity yet: set joinTokenFile to a file with the token that `castellan token create` prints, or x509pop to a certificate of this node',
    )
  }
  try {
    return readFileSync(path, 'utf8').trim()
  } catch (cause) {
    throw new IdentityError(
      'ERR_CONFIG',
      `cannot read the join token from ${path} (${errnoOf(cause)})`,
      { cause },
    )
  }
}

export function joinTokenAttestor(path: string | undefined): NodeAttestor {
  return {
    type: 'join_token',
    payload: () => new Uint8Array(Buffer.from(tokenFrom(path))),
    respond: undefined,
    isRepeatable: false,
  }
}
