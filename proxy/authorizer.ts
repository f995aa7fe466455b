// One external authorizer: asked about a request by its method, path, host and named fields, never its body.
// 200 consents, any other answer denies; no answer denies too, unless failOpen says otherwise.
import { readFileSync } from 'node:fs'
import { Agent, request as askPlain, type IncomingMessage, type RequestOptions } from 'node:http'
import { request as askTls, Agent as TlsAgent } from 'node:https'
import type { AuthorizerSpec, Target } from '../proxy-spec/authorizers.ts'
import { mayPass } from '../proxy-spec/header-names.ts'
import type { Log } from '../runtime/log.ts'
import { explain } from '../spiffe/errors.ts'
import type { Refusal } from './door.ts'
import { framingHeaders } from './forward.ts'
import { isIdentity, type Named, passingRequest } from './headers.ts'

/** What an authorizer may be told of a request. */
export interface Check {
  readonly method: string
  /** with its query, as it would be forwarded */
  readonly path: string
  readonly host: string
  /** names and values in turn; the named ones of them are told */
  readonly headers: readonly string[]
}

export type Answer =
  | {
      readonly kind: 'consent'
      /** The fields of the request as the workload gets them. */
      readonly change: (headers: readonly string[]) => readonly string[]
      /** fields for the caller, names and values in turn */
      readonly downstream: readonly string[]
    }
  | { readonly kind: 'refusal'; readonly refusal: Refusal }

export interface Authorizer extends Disposable {
  /** Rejects only when `signal` is aborted. */
  ask(check: Check, signal: AbortSignal): Promise<Answer>
}

export interface AuthorizerOptions extends Named {
  readonly name: string
  readonly log: Log
  /** told of each request for which it gave no answer */
  readonly onFailure: () => void
  /** of the fields of an answer */
  readonly headerBytes: number
}

type Match = (name: string) => boolean

/** `names` in lower case: whole, `x-*` or `*-x`. */
function matching(names: readonly string[]): Match {
  const whole = new Set(names)
  const starts = names.flatMap((it) => (it.endsWith('*') ? [it.slice(0, -1)] : []))
  const ends = names.flatMap((it) => (it.startsWith('*') ? [it.slice(1)] : []))
  return (name) =>
    whole.has(name) ||
    starts.some((start) => name.startsWith(start)) ||
    ends.some((end) => name.endsWith(end))
}

function only(headers: readonly string[], matches: Match): string[] {
  const kept: string[] = []
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const [field = '', value = ''] = [headers[i], headers[i + 1]]
    if (matches(field.toLowerCase())) kept.push(field, value)
  }
  return kept
}

/** By name; what stands there twice becomes a list. */
function byName(headers: readonly string[]): Record<string, string | string[]> {
  const all: Record<string, string | string[]> = {}
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const [field = '', value = ''] = [headers[i]?.toLowerCase(), headers[i + 1]]
    const before = all[field]
    all[field] = before === undefined ? value : [before, value].flat()
  }
  return all
}

// what a status means nothing without (RFC 9110 §15.4, §15.5.2)
const ofStatus: ReadonlySet<string> = new Set(['location', 'www-authenticate'])

// no success, nothing without body and no other protocol is what a denied caller is told
const isDenial = (status: number) => status >= 300 && status !== 304

const text = 'access denied'

/** Which fields of a request an authorizer's own take the place of. */
const replacing =
  (upstream: Match, named: Named): Match =>
  (name) =>
    mayPass(name) && !isIdentity(name, named) && upstream(name)

/** What its answer means, by the lists of the spec. */
function createReading(
  { http }: AuthorizerSpec,
  named: Named,
): (response: IncomingMessage) => Answer {
  const upstream = matching(http.headersToUpstreamOnAllow)
  const onAllow = matching(http.headersToDownstreamOnAllow)
  const onDeny = matching(http.headersToDownstreamOnDeny)
  const isReplaced = replacing(upstream, named)
  return ({ statusCode = 0, rawHeaders }) => {
    const fields = passingRequest(rawHeaders, named, [])
    if (statusCode !== 200) {
      const headers = byName(only(fields, (name) => ofStatus.has(name) || onDeny(name)))
      const status = isDenial(statusCode) ? statusCode : 403
      return { kind: 'refusal', refusal: { status, text, headers } }
    }
    const given = only(fields, upstream)
    return {
      kind: 'consent',
      change: (headers) => [...only(headers, (name) => !isReplaced(name)), ...given],
      downstream: only(fields, onAllow),
    }
  }
}

/** Consent of nobody: what only the authorizer may say is not there. */
function passedOn({ http }: AuthorizerSpec, named: Named): Answer {
  const isReplaced = replacing(matching(http.headersToUpstreamOnAllow), named)
  const change = (headers: readonly string[]) => only(headers, (name) => !isReplaced(name))
  return { kind: 'consent', change, downstream: [] }
}

interface Line extends Disposable {
  /** Throws for what cannot be written as a request. */
  send(options: RequestOptions, signal: AbortSignal): Promise<IncomingMessage>
}

const mostSockets = 128
// requests that wait for an answer; who asks so often that there are more is denied, with failOpen too
const mostWaiting = 1024

/** Connections to one target, kept; one that had been closed meanwhile is replaced by a fresh one, once. */
function lineTo(target: Target, roots: string | undefined): Line {
  const isTls = target.via === 'https'
  // a resumed session would not be verified
  const tls = { maxCachedSessions: 0, ...(roots === undefined ? {} : { ca: roots }) }
  const agentOf = (keepAlive: boolean) =>
    isTls
      ? new TlsAgent({ ...tls, keepAlive, maxSockets: mostSockets })
      : new Agent({ keepAlive, maxSockets: mostSockets })
  const [pooled, single] = [agentOf(true), agentOf(false)]
  const place =
    target.via === 'unix'
      ? { socketPath: target.socketPath }
      : { host: target.host, port: target.port }

  function start(agent: Agent, options: RequestOptions, signal: AbortSignal) {
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>()
    const asked = (isTls ? askTls : askPlain)({ ...options, ...place, agent, signal })
    asked.on('error', (error) => {
      const isStale = agent === pooled && asked.reusedSocket && !signal.aborted
      if (isStale) resolve(start(single, options, signal))
      else reject(error)
    })
    asked.once('response', (response) => {
      response.on('error', () => {})
      response.resume()
      resolve(response)
    })
    asked.once('close', () => reject(new Error('the connection ended without an answer')))
    asked.end()
    return promise
  }

  return {
    send: (options, signal) => start(pooled, options, signal),
    [Symbol.dispose]() {
      pooled.destroy()
      single.destroy()
    },
  }
}

/** The request that asks. */
function createWriting({ http }: AuthorizerSpec): (check: Check) => RequestOptions {
  const added = Object.entries(http.includeAdditionalHeadersInCheck)
  const names = new Set(added.map(([name]) => name.toLowerCase()))
  const included = matching(http.includeRequestHeadersInCheck)
  const isTold = (name: string) => included(name) && !names.has(name)
  return ({ method, path, host, headers }) => ({
    method,
    path: `${http.pathPrefix}${path}`,
    setHost: false,
    headers: [
      ...['host', host, ...only(headers, isTold), ...added.flat()],
      ...framingHeaders(method, { kind: 'none' }),
    ],
  })
}

/** Reads the roots that the spec names. */
export function createAuthorizer(spec: AuthorizerSpec, options: AuthorizerOptions): Authorizer {
  const { name, log, onFailure, headerBytes } = options
  const { http, timeout, failOpen, statusOnError } = spec
  const roots = http.roots === undefined ? undefined : readFileSync(http.roots, 'utf8')
  const line = lineTo(http.url, roots)
  const [read, write] = [createReading(spec, options), createWriting(spec)]
  const refusal: Answer = { kind: 'refusal', refusal: { status: statusOnError, text } }
  const open = passedOn(spec, options)
  let waiting = 0

  function fail(error: unknown, passes: boolean): Answer {
    onFailure()
    const what = passes ? 'passed on, as failOpen says' : 'denied'
    log.warn({ authorizer: name, reason: explain(error) }, `no answer of an authorizer: ${what}`)
    return passes ? open : refusal
  }

  return {
    async ask(check, signal) {
      if (waiting >= mostWaiting) return fail(`${waiting} requests wait for it already`, false)
      const either = AbortSignal.any([signal, AbortSignal.timeout(timeout)])
      let sent: Promise<IncomingMessage>
      try {
        sent = line.send({ ...write(check), maxHeaderSize: headerBytes }, either)
      } catch (error) {
        // who writes such a request does not get around the authorizer by it
        return fail(error, false)
      }
      waiting++
      try {
        return read(await sent)
      } catch (error) {
        signal.throwIfAborted()
        return fail(error, failOpen)
      } finally {
        waiting--
      }
    },
    [Symbol.dispose]: () => line[Symbol.dispose](),
  }
}
