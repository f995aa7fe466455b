// The keys of a token issuer: read again when they are old, or when a token names a key that is not
// among them; kept for a day while they cannot be read.
import { createLocalJWKSet, errors, type JWTVerifyGetKey } from 'jose'
import { z } from 'zod'
import type { Clock } from '../../runtime/clock.ts'
import { IdentityError } from '../../spiffe/errors.ts'

const minute = 60_000
const old = 5 * minute
const tooOld = 24 * 60 * minute
/** between two tries: a token with a made-up key ID asks the issuer for nothing */
const pause = minute / 6

const keySet = z.object({ keys: z.array(z.looseObject({ kty: z.string() })).max(100) })

export interface KeySetOptions {
  /** JSON of a JWK Set (RFC 7517 §5) */
  readonly load: () => Promise<string>
  readonly clock: Pick<Clock, 'monotonic'>
  /** told why the keys could not be read while the last ones still serve */
  readonly onFailure: (error: unknown) => void
}

interface Known {
  readonly find: ReturnType<typeof createLocalJWKSet>
  readonly readAt: number
}

/** Finds the key of a token. Throws ERR_UNAVAILABLE when there are none that are fresh enough. */
export function createKeySet({ load, clock, onFailure }: KeySetOptions): JWTVerifyGetKey {
  let known: Known | undefined
  let triedAt = Number.NEGATIVE_INFINITY
  let reading: Promise<void> | undefined
  const age = () => clock.monotonic() - (known?.readAt ?? Number.NEGATIVE_INFINITY)

  async function read(): Promise<void> {
    triedAt = clock.monotonic()
    try {
      const set = keySet.parse(JSON.parse(await load()))
      known = { find: createLocalJWKSet(set), readAt: clock.monotonic() }
    } catch (cause) {
      if (age() < tooOld) return onFailure(cause)
      throw new IdentityError('ERR_UNAVAILABLE', 'the keys of the issuer cannot be read', { cause })
    } finally {
      reading = undefined
    }
  }

  async function readAgain(): Promise<void> {
    if (reading === undefined && clock.monotonic() - triedAt < pause) return
    reading ??= read()
    await reading
  }

  async function find(...[header, token]: Parameters<JWTVerifyGetKey>) {
    if (known === undefined || age() >= tooOld) {
      throw new IdentityError('ERR_UNAVAILABLE', 'the keys of the issuer could not be read')
    }
    return known.find(header, token)
  }

  return async (header, token) => {
    if (age() >= old) await readAgain()
    try {
      return await find(header, token)
    } catch (error) {
      if (!(error instanceof errors.JWKSNoMatchingKey)) throw error
      await readAgain()
      return find(header, token)
    }
  }
}
