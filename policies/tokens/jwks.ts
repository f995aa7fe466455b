// JSON Web Key Sets of token issuers (RFC 7517), imported once. Symmetric and private keys are refused:
// whoever reads the policy could sign with them.
import { createPublicKey, type KeyObject } from 'node:crypto'
import { z } from 'zod'
import { duplicateMember } from '../../spiffe/json.ts'

/** characters, and bytes where a set is read from */
export const longestJwks = 256 * 1024

export interface IssuerKey {
  /** undefined when the set does not name its keys */
  readonly keyId: string | undefined
  /** the one algorithm it is for; undefined when the set does not say */
  readonly algorithm: string | undefined
  readonly key: KeyObject
}

export type ReadJwks =
  | { readonly ok: true; readonly keys: readonly IssuerKey[] }
  | { readonly ok: false; readonly problem: string }

const keySet = z.object({
  keys: z
    .array(
      z.looseObject({
        kty: z.string(),
        kid: z.string().optional(),
        alg: z.string().optional(),
        use: z.string().optional(),
      }),
    )
    .max(100),
})

const secretMembers = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k']
const smallestRsa = 2048

type Member = z.infer<typeof keySet>['keys'][number]

function importKey(jwk: Member): KeyObject | undefined {
  try {
    const key = createPublicKey({ key: jwk, format: 'jwk' })
    const bits = key.asymmetricKeyDetails?.modulusLength
    return bits !== undefined && bits < smallestRsa ? undefined : key
  } catch {
    return undefined
  }
}

/** Keys of other kinds and uses are skipped (RFC 7517 §5); a set without a usable key is a problem. */
export function readJwks(text: string): ReadJwks {
  const problem = (reason: string): ReadJwks => ({ ok: false, problem: reason })
  if (text.length > longestJwks) return problem('a JWKS longer than 256 KiB')
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return problem('no JSON')
  }
  // unnamed: the text may be that of another file, which no log should quote
  if (duplicateMember(text) !== undefined) return problem('a member of an object twice')
  const parsed = keySet.safeParse(value)
  if (!parsed.success) return problem('no JWKS: an object with keys, each with its kty')
  const { keys } = parsed.data
  if (keys.some((key) => secretMembers.some((member) => Object.hasOwn(key, member)))) {
    return problem('a private or symmetric key: whoever reads the policy could sign with it')
  }
  const usable = keys.flatMap((jwk): IssuerKey[] => {
    if (jwk.use !== undefined && jwk.use !== 'sig') return []
    const key = importKey(jwk)
    return key === undefined ? [] : [{ keyId: jwk.kid, algorithm: jwk.alg, key }]
  })
  return usable.length === 0
    ? problem('no key that signatures can be verified with')
    : { ok: true, keys: usable }
}
