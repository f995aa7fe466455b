// The workloads' JWT- and WIT-SVIDs: asked for when somebody wants one, kept until half of what was left is
// over, and until the end while the authority is away.
import type { Clock } from '../runtime/clock.ts'
import { createTopic } from '../runtime/lifecycle.ts'
import { hasCode } from '../spiffe/errors.ts'
import { renewalPoint, taintPoint } from '../spiffe/renewal.ts'
import type { KeptToken } from './disk-cache.ts'
import type { Taints } from './trust.ts'

export interface HeldToken {
  readonly token: string
  /** PKCS#8 of a WIT-SVID's holder */
  readonly holder?: Uint8Array | undefined
  /** milliseconds since the epoch */
  readonly receivedAt: number
  readonly expiresAt: number
}

/** A token as the authority gave it; its life is counted by this agent's clock. */
export type MintToken = () => Promise<Pick<HeldToken, 'token' | 'holder' | 'expiresAt'>>

export interface TokenCache {
  /**
   * The token that `key` stands for: a kept one, or a new one by `mint`. Throws what `mint` throws when
   * there is none that is still good.
   */
  get(key: string, mint: MintToken): Promise<HeldToken>
  /** milliseconds since the epoch from which a new one is wanted */
  dueAt(held: HeldToken): number
  kept(): KeptToken[]
  restore(kept: readonly KeptToken[]): void
  onChange(listener: () => void): Disposable
}

export interface TokenCacheOptions {
  readonly clock: Clock
  readonly taints: () => Taints
  /** Whether tokens by that key are believed still: those of a key that was revoked are given to nobody. */
  readonly isBelieved: (keyId: string) => boolean
  /** tokens at most; the longest unused go first */
  readonly most?: number
}

/** milliseconds that a caller waits for a new token while an old one is good */
const patience = 5000
/** milliseconds in which a token that is handed out has to be of use */
const leastLife = 1000

function keyIdOf(token: string): string {
  const [header = ''] = token.split('.')
  try {
    const parsed: unknown = JSON.parse(Buffer.from(header, 'base64url').toString('utf8'))
    const kid = typeof parsed === 'object' && parsed !== null ? Reflect.get(parsed, 'kid') : ''
    return String(kid)
  } catch {
    return ''
  }
}

export function createTokenCache(options: TokenCacheOptions): TokenCache {
  const { clock, taints, isBelieved, most = 1000 } = options
  // in the order of their last use
  const held = new Map<string, HeldToken>()
  const minting = new Map<string, Promise<HeldToken>>()
  const topic = createTopic<void>()

  function dueAt({ token, receivedAt, expiresAt }: HeldToken): number {
    const bytes = Buffer.from(token)
    const point = renewalPoint(bytes, receivedAt, expiresAt)
    const taintedAt = taints().ofKey(keyIdOf(token))
    return taintedAt === undefined
      ? point
      : Math.min(point, taintPoint(bytes, taintedAt, expiresAt))
  }

  function put(key: string, next: HeldToken): void {
    // a key that is there already is not another token (R20)
    held.delete(key)
    for (const oldest of held.keys()) {
      if (held.size < most) break
      held.delete(oldest)
    }
    held.set(key, next)
  }

  function mintOnce(key: string, mint: MintToken): Promise<HeldToken> {
    const running = minting.get(key)
    if (running !== undefined) return running
    const minted = mint()
      .then((made) => {
        const next: HeldToken = { ...made, receivedAt: clock.now() }
        put(key, next)
        topic.publish()
        return next
      })
      .finally(() => minting.delete(key))
    minting.set(key, minted)
    minted.catch(() => {})
    return minted
  }

  /** A new one, or after a while the old one. */
  async function renewed(key: string, old: HeldToken, mint: MintToken): Promise<HeldToken> {
    const over = new AbortController()
    const late = clock.sleep(patience, { signal: over.signal }).then(
      () => old,
      () => old,
    )
    try {
      return await Promise.race([mintOnce(key, mint), late])
    } catch (error) {
      // an authority that says no is believed
      if (hasCode(error, 'ERR_NO_IDENTITY', 'ERR_DENIED')) throw error
      return old
    } finally {
      over.abort()
    }
  }

  return {
    dueAt,
    async get(key, mint) {
      const known = held.get(key)
      const now = clock.now()
      const isGood =
        known !== undefined &&
        known.expiresAt - now >= leastLife &&
        isBelieved(keyIdOf(known.token))
      if (!isGood) return await mintOnce(key, mint)
      put(key, known)
      return now < dueAt(known) ? known : await renewed(key, known, mint)
    },
    kept: () =>
      [...held].map(([key, { token, holder, receivedAt, expiresAt }]) => ({
        ...{ key, token, holder, receivedAt, expiresAt },
      })),
    restore(kept) {
      for (const { key, ...token } of kept) {
        if (token.expiresAt > clock.now()) put(key, token)
      }
    },
    onChange: (listener) => topic.subscribe(listener),
  }
}

/** What a token is kept under: the entry as it is, and for whom it is. */
export function tokenKey(
  kind: 'jwt' | 'wit',
  entry: { readonly id: string; readonly spiffeId: string; readonly revision: bigint },
  audience: readonly string[] = [],
): string {
  // JSON, so that no audience can run into the next one (R11)
  const { id, spiffeId, revision } = entry
  return JSON.stringify([kind, id, spiffeId, String(revision), ...new Set([...audience].sort())])
}
