// The keys of token issuers that policies name by address: fetched or read beside the path of requests, kept
// while they can be had, and gone when they could not be for too long. Decisions never wait for them.

import { keyFileOf } from '../policies/language/request-authentication.ts'
import type { JwksSource } from '../policies/tokens/authenticate.ts'
import { type IssuerKey, readJwks } from '../policies/tokens/jwks.ts'
import { createBackoff } from '../runtime/backoff.ts'
import type { Clock } from '../runtime/clock.ts'
import { type Running, run } from '../runtime/lifecycle.ts'
import { explain, IdentityError } from '../spiffe/errors.ts'

/** Fetches or reads one JWKS, bounded in time, size and address. */
export type LoadJwks = (uri: string, signal: AbortSignal) => Promise<string>

export interface IssuersOptions {
  readonly load: LoadJwks
  readonly clock: Clock
  /** told of each failed fetch, and of a file whenever it fails for another reason than before */
  readonly onTrouble: (uri: string, error: unknown) => void
  /** uniform in [0, 1) */
  readonly random?: () => number
}

export interface Issuers extends AsyncDisposable {
  readonly source: JwksSource
  /** Gets what is named now, and forgets the rest. */
  follow(uris: readonly string[]): void
}

interface Rhythm {
  /** milliseconds between two looks, and at most after a failure */
  readonly refresh: number
  readonly cap: number
  /** whether the same failure is worth telling again */
  readonly isRare: boolean
}

// Istio's own rhythm; a file is looked at as soon as somebody would wonder
const fetching: Rhythm = { refresh: 20 * 60_000, cap: 60_000, isRare: true }
const reading: Rhythm = { refresh: 5000, cap: 5000, isRare: false }
const longestKept = 24 * 60 * 60_000
const mostIssuers = 256

interface Held {
  keys: readonly IssuerKey[] | undefined
  /** what they were read from */
  text: string | undefined
  /** milliseconds of the monotonic clock */
  fetched: number
  readonly loop: Running
}

function keysIn(text: string): readonly IssuerKey[] {
  const read = readJwks(text)
  if (!read.ok) throw new IdentityError('ERR_UNTRUSTED', `no usable JWKS: ${read.problem}`)
  return read.keys
}

/** The same text leaves the keys as they are: tokens that were verified with them stay verified. */
function renew(held: Held | undefined, text: string, now: number): void {
  if (held === undefined) return
  if (held.text !== text) held.keys = keysIn(text)
  held.text = text
  held.fetched = now
}

export function createIssuers(options: IssuersOptions): Issuers {
  const { load, clock, onTrouble, random = Math.random } = options
  const held = new Map<string, Held>()

  /** Keeps one set fresh: again after a while, sooner when it failed. */
  async function keep(uri: string, signal: AbortSignal): Promise<void> {
    const { refresh, cap, isRare } = keyFileOf(uri) === undefined ? fetching : reading
    const backoff = createBackoff({ first: 1000, cap, random })
    let told: string | undefined
    while (!signal.aborted) {
      let wait = refresh * (0.9 + 0.2 * random())
      try {
        const text = await load(uri, signal)
        renew(held.get(uri), text, clock.monotonic())
        backoff.reset()
        told = undefined
      } catch (error) {
        if (signal.aborted) return
        const reason = explain(error)
        if (isRare || reason !== told) onTrouble(uri, error)
        told = reason
        wait = backoff.next()
      }
      await clock.sleep(wait, { signal })
    }
  }

  return {
    source(uri) {
      const known = held.get(uri)
      if (known === undefined) return undefined
      return clock.monotonic() - known.fetched > longestKept ? undefined : known.keys
    },
    follow(uris) {
      const wanted = new Set(uris.slice(0, mostIssuers))
      for (const [uri, { loop }] of held) {
        if (wanted.has(uri)) continue
        held.delete(uri)
        void loop[Symbol.asyncDispose]()
      }
      for (const uri of wanted) {
        if (held.has(uri)) continue
        const loop = run((signal) => keep(uri, signal))
        held.set(uri, { keys: undefined, text: undefined, fetched: Number.NEGATIVE_INFINITY, loop })
      }
    },
    async [Symbol.asyncDispose]() {
      const all = [...held.values()]
      held.clear()
      await Promise.all(all.map(({ loop }) => loop[Symbol.asyncDispose]()))
    },
  }
}
