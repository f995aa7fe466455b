// The keys of token issuers that policies name: over HTTPS or from files of this node.
import { readFileSync } from 'node:fs'
import { createIssuers, type Issuers } from '../client/issuers.ts'
import { keyFileOf } from '../policies/language/request-authentication.ts'
import { longestJwks } from '../policies/tokens/jwks.ts'
import type { JwksAccess } from '../proxy-spec/decisions.ts'
import type { Clock } from '../runtime/clock.ts'
import { fetchBounded } from '../runtime/fetch.ts'
import type { Log } from '../runtime/log.ts'
import { readBounded } from '../runtime/read-bounded.ts'
import { explain } from '../spiffe/errors.ts'

export interface StartIssuersOptions {
  /** what to write, and where, so that private addresses are allowed */
  readonly remedy: string
  readonly log: Log
  readonly clock: Clock
}

const fetchTime = 5000

export function startIssuers(jwks: JwksAccess, options: StartIssuersOptions): Issuers {
  const { remedy, log, clock } = options
  const roots = jwks.roots === undefined ? undefined : readFileSync(jwks.roots, 'utf8')
  return createIssuers({
    clock,
    onTrouble: (uri, error) => log.warn({ uri, reason: explain(error) }, 'no keys of an issuer'),
    async load(uri, signal) {
      const file = keyFileOf(uri)
      if (file !== undefined) return (await readBounded(file, longestJwks)).toString('utf8')
      const bytes = await fetchBounded(uri, {
        roots,
        privateAddress: jwks.privateAddresses,
        remedy,
        timeout: fetchTime,
        most: longestJwks,
        signal,
      })
      return bytes.toString('utf8')
    },
  })
}
