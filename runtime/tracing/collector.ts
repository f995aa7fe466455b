// One request to an OpenTelemetry collector, under invariant 9: a time limit, no redirects, an answer that is not
// read beyond a bound, no address that nobody publishes at.
import { readFileSync } from 'node:fs'
import { type IncomingMessage, request as requestPlain } from 'node:http'
import { request as requestTls } from 'node:https'
import { explain, hasCode, IdentityError } from '../../spiffe/errors.ts'
import { parsePem } from '../../spiffe/pem.ts'
import { guardedLookup, urlProblem } from '../fetch.ts'
import type { TracingConfig } from './config.ts'
import type { SendSpans } from './exporter.ts'
import { otlpBody } from './otlp.ts'
import type { Attributes } from './span.ts'

const rule = { privateAddress: true, remedy: '' }
/** bytes of an answer, which says nothing that is used */
const largestAnswer = 64 * 1024
/** What OTLP wants sent again (§ Retryable Response Codes). */
const retryable: ReadonlySet<number> = new Set([429, 502, 503, 504])

/** A collector that cannot be reached may be there later; one that says what is wrong says it again. */
export const mayRetry = (error: unknown) => !hasCode(error, 'ERR_BAD_REQUEST')

function refusalOf(status: number): IdentityError {
  const code = retryable.has(status) ? 'ERR_UNAVAILABLE' : 'ERR_BAD_REQUEST'
  return new IdentityError(code, `the collector answers ${status}`)
}

function rootsOf({ roots: file }: TracingConfig): { readonly ca?: string } {
  if (file === undefined) return {}
  try {
    const ca = readFileSync(file, 'utf8')
    parsePem(ca, 'CERTIFICATE', file)
    return { ca }
  } catch (cause) {
    const message = `tracing.roots: cannot read ${file}: ${explain(cause)}`
    throw new IdentityError('ERR_CONFIG', message, { cause })
  }
}

/** Rejects when the answer is not one of success; the connection is free again afterwards. */
function settled(response: IncomingMessage): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  let size = 0
  response.on('data', (part: Buffer) => {
    size += part.length
    if (size > largestAnswer) response.destroy()
  })
  response.on('error', reject)
  response.on('close', () => {
    const { statusCode = 0 } = response
    if (statusCode >= 200 && statusCode < 300) resolve()
    else reject(refusalOf(statusCode))
  })
  return promise
}

/** Throws ERR_CONFIG for an address that is never sent to, and for roots that cannot be read. */
export function openCollector(config: TracingConfig, resource: Attributes): SendSpans {
  const url = new URL('v1/traces', `${config.otlp.replace(/\/+$/, '')}/`)
  const problem = urlProblem(url, rule)
  if (problem !== undefined) throw new IdentityError('ERR_CONFIG', `tracing.otlp: ${problem}`)
  const request = url.protocol === 'https:' ? requestTls : requestPlain
  // a connection of its own for each batch: at most one in a second
  const connection = { ...rootsOf(config), lookup: guardedLookup(rule), agent: false } as const

  return async (spans, signal) => {
    const body = otlpBody(resource, spans)
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const headers = {
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(body),
    }
    const asked = request(url, { ...connection, method: 'POST', headers, signal }, (response) =>
      settled(response).then(resolve, reject),
    )
    asked.on('error', reject)
    asked.end(body)
    await promise
  }
}
