// Tokens that are used again until half of their life is over.
import type { Clock } from '../runtime/clock.ts'
import { hasCode, meaningOf } from '../spiffe/errors.ts'

interface Expiring {
  /** milliseconds since the epoch */
  readonly expiresAt: number
}

export interface TokenCache<Token extends Expiring> {
  /** The token of `key`, made by `mint` when there is none, and again from half of its life on. */
  get(key: string, mint: () => Promise<Token>): Promise<Token>
  clear(): void
}

interface Held<Token> {
  readonly token: Token
  refreshAt: number
}

const mostTokens = 1024
/** milliseconds until the next attempt when one has failed and the token of before still holds */
const pause = 5000

/** `isKnown`: whether a token would still be accepted, as far as can be told. */
export function createTokenCache<Token extends Expiring>(
  clock: Clock,
  isKnown: (token: Token) => boolean,
): TokenCache<Token> {
  const tokens = new Map<string, Held<Token>>()
  const flights = new Map<string, Promise<Token>>()

  const holds = ({ token }: Held<Token>) => clock.now() < token.expiresAt && isKnown(token)

  function keep(key: string, token: Token): void {
    tokens.delete(key)
    for (const [other, held] of tokens) if (!holds(held)) tokens.delete(other)
    const [oldest] = tokens.keys()
    if (tokens.size >= mostTokens && oldest !== undefined) tokens.delete(oldest)
    const now = clock.now()
    tokens.set(key, { token, refreshAt: now + (token.expiresAt - now) / 2 })
  }

  /** Whoever asks while one is being made gets that one. */
  function make(key: string, mint: () => Promise<Token>): Promise<Token> {
    const known = flights.get(key)
    if (known !== undefined) return known
    const flight = mint()
    flights.set(key, flight)
    const land = () => {
      if (flights.get(key) === flight) flights.delete(key)
    }
    flight.then((token) => {
      if (flights.get(key) === flight) keep(key, token)
      land()
    }, land)
    return flight
  }

  return {
    async get(key, mint) {
      const held = tokens.get(key)
      if (held !== undefined && holds(held) && clock.now() < held.refreshAt) return held.token
      try {
        return await make(key, mint)
      } catch (error) {
        const isLater = hasCode(error) && meaningOf(error.code).retry
        // no identity any more: what was good before is not
        if (!isLater) tokens.delete(key)
        if (!isLater || held === undefined || !holds(held)) throw error
        held.refreshAt = clock.now() + pause
        return held.token
      }
    },
    clear() {
      tokens.clear()
      // what is under way is not kept either
      flights.clear()
    },
  }
}
