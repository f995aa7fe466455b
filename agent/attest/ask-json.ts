// Asking a service of this node, such as a container runtime: over its unix socket or over HTTP. A time
// limit, a size limit, no redirects, no address that nobody serves.
import {
  type ClientRequest,
  request as http,
  type IncomingMessage,
  type RequestOptions,
} from 'node:http'
import { request as https } from 'node:https'
import { guardedLookup, readBody, urlProblem } from '../../runtime/fetch.ts'
import { explain, IdentityError } from '../../spiffe/errors.ts'

export interface TlsOptions {
  /** PEM of the authorities that the server's certificate leads to */
  readonly ca: string
  /** whom the certificate has to name, when that is not the host of the URL */
  readonly servername?: string | undefined
  /** PEM of a client certificate and its key */
  readonly cert?: string | undefined
  readonly key?: string | undefined
}

export interface Question {
  /** who is asked, for messages */
  readonly whom: string
  readonly to: { readonly socketPath: string; readonly path: string } | { readonly url: string }
  readonly tls?: TlsOptions
  readonly headers?: Readonly<Record<string, string>>
  /** milliseconds for all of it */
  readonly timeout: number
  /** bytes of the body */
  readonly most: number
  readonly signal: AbortSignal
}

const rule = { privateAddress: true } as const
/** Resolves as node:dns does, but for addresses that nobody serves at. */
const lookup = guardedLookup(rule)

type Respond = (response: IncomingMessage) => void

function send(question: Question, signal: AbortSignal, respond: Respond): ClientRequest {
  const { to, tls, headers = {} } = question
  // no agent: it would resume TLS sessions, and those skip the check of the server's name
  const shared: RequestOptions = { headers: { ...headers }, signal, agent: false, lookup }
  if ('socketPath' in to) return http({ ...shared, ...to, host: 'localhost' }, respond)
  const url = new URL(to.url)
  const problem = urlProblem(url, rule)
  if (problem !== undefined) throw new Error(problem)
  if (url.protocol === 'http:') return http(url, shared, respond)
  if (tls === undefined) throw new Error('there are no authorities to check its certificate with')
  return https(url, { ...shared, ...tls, minVersion: 'TLSv1.2' }, respond)
}

/** The body; undefined when the answer is that there is no such thing. */
function bodyOf(question: Question, signal: AbortSignal): Promise<string | undefined> {
  const { promise, resolve: done, reject } = Promise.withResolvers<string | undefined>()
  const asked = send(question, signal, (response) => {
    const { statusCode = 0 } = response
    if (statusCode !== 200) {
      response.destroy()
      if (statusCode === 404) return done(undefined)
      return reject(new Error(`the answer is ${statusCode}, not 200`))
    }
    readBody(response, question.most).then((body) => done(body.toString()), reject)
  })
  asked.on('error', reject)
  asked.end()
  return promise
}

/** What they answer, parsed; undefined for 404. Throws ERR_UNAVAILABLE, naming whom and the reason. */
export async function askJson(question: Question): Promise<unknown> {
  const { whom, timeout } = question
  try {
    const signal = AbortSignal.any([question.signal, AbortSignal.timeout(timeout)])
    const text = await bodyOf(question, signal)
    return text === undefined ? undefined : JSON.parse(text)
  } catch (cause) {
    const why = cause instanceof SyntaxError ? 'the answer is not JSON' : explain(cause)
    // what was answered may hold secrets: it is in no message
    const context = cause instanceof SyntaxError ? {} : { cause }
    throw new IdentityError('ERR_UNAVAILABLE', `cannot ask ${whom}: ${why}`, context)
  }
}
