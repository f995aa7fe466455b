// From the configuration to the callers of Istio's certificate service.
import { readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import type { JWTVerifyGetKey } from 'jose'
import type { Clock } from '../../runtime/clock.ts'
import { fetchBounded } from '../../runtime/fetch.ts'
import type { Log } from '../../runtime/log.ts'
import { explain, IdentityError } from '../../spiffe/errors.ts'
import { parsePem } from '../../spiffe/pem.ts'
import type { CaConfig } from '../config.ts'
import type { DenyRuleRow } from '../store/model.ts'
import type { IssuanceTable } from '../store/store.ts'
import { createIstioCallers, type IstioCallers } from './callers.ts'
import { createKeySet } from './key-set.ts'

export interface IstioParts {
  readonly clock: Clock
  readonly log: Log
  readonly issued: Pick<IssuanceTable, 'find'>
  readonly denyRules: () => readonly DenyRuleRow[]
}

type Config = NonNullable<CaConfig['istio']>
type KeySource = Config['tokens'][number]['jwks']

const limits = { timeout: 10_000, most: 1 << 20 } as const

/** Reads what has to be there at the start. Throws ERR_CONFIG naming `field`. */
function check<T>(field: string, file: string, read: (text: string) => T): T {
  try {
    return read(readFileSync(file, 'utf8'))
  } catch (cause) {
    const message = `${field}: cannot read ${file}: ${explain(cause)}`
    throw new IdentityError('ERR_CONFIG', message, { cause })
  }
}

function loader(jwks: KeySource, field: string): () => Promise<string> {
  if ('file' in jwks) {
    const { file } = jwks
    check(`${field}.file`, file, JSON.parse)
    return () => readFile(file, 'utf8')
  }
  const { url, roots: file, privateAddress } = jwks
  const roots =
    file === undefined
      ? undefined
      : check(`${field}.roots`, file, (text) => {
          parsePem(text, 'CERTIFICATE', file)
          return text
        })
  const options = { roots, privateAddress, ...limits }
  return async () => (await fetchBounded(url, options)).toString('utf8')
}

/** Undefined when Istio's certificate service is not configured. Throws ERR_CONFIG. */
export function openIstio(config: CaConfig, parts: IstioParts): IstioCallers | undefined {
  const { istio, trustDomain } = config
  if (istio === undefined) return undefined
  const { clock, log, issued, denyRules } = parts
  const keysOf = (issuer: string, jwks: KeySource, at: number): JWTVerifyGetKey =>
    createKeySet({
      load: loader(jwks, `istio.tokens[${at}].jwks`),
      clock,
      onFailure: (err) => log.warn({ err, issuer }, 'its keys cannot be read; the last ones serve'),
    })
  const issuers = istio.tokens.map(({ issuer, audiences, jwks }, at) => ({
    issuer,
    audiences,
    keys: keysOf(issuer, jwks, at),
  }))
  return createIstioCallers({ issued, denyRules, tokens: { trustDomain, clock, issuers } })
}
