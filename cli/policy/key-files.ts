// The keys of token issuers that policies name by file, read once. What is named by https:// is not fetched
// offline, and of what cannot be read no token holds: as it is at a sidecar.
import type { PolicyDocuments } from '../../policies/language/read.ts'
import { jwksUrisOf } from '../../policies/language/read.ts'
import { keyFileOf } from '../../policies/language/request-authentication.ts'
import type { JwksSource } from '../../policies/tokens/authenticate.ts'
import { longestJwks, readJwks } from '../../policies/tokens/jwks.ts'
import { readBounded } from '../../runtime/read-bounded.ts'
import { explain } from '../../spiffe/errors.ts'
import type { Context } from '../context.ts'

/** Says on standard error which file could not be used, and why. */
export async function readKeyFiles(
  documents: PolicyDocuments,
  { process: { stderr } }: Pick<Context, 'process'>,
): Promise<JwksSource> {
  const known = new Map<string, ReturnType<JwksSource>>()
  const complain = (why: string) =>
    stderr.write(`no keys of an issuer, whose tokens are refused: ${why}\n`)
  for (const uri of jwksUrisOf(documents)) {
    const file = keyFileOf(uri)
    if (file === undefined) continue
    try {
      const read = readJwks((await readBounded(file, longestJwks)).toString('utf8'))
      if (read.ok) known.set(uri, read.keys)
      else complain(`${file}: ${read.problem}`)
    } catch (error) {
      complain(explain(error))
    }
  }
  return (uri) => known.get(uri)
}
