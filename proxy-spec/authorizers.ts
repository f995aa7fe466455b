// External authorizers as the proxy spec names them: the providers of CUSTOM policies, with the names that
// Istio's extensionProviders give to the fields of envoyExtAuthzHttp.
import { z } from 'zod'
import { name } from '../policies/language/words.ts'
import { duration } from '../runtime/config.ts'
import { mayPass, peerIdHeader } from './header-names.ts'
import { loopback } from './loopback.ts'

const isPassable = (text: string) => text.includes('*') || mayPass(text)
export const impassable =
  'never passed on: framing, host, fields of one hop and claims about the peer'

// names are compared without case
const header = z
  .string()
  .regex(/^(?:[A-Za-z0-9-]+\*?|\*[A-Za-z0-9-]+)$/, 'a header name, or one as x-* or *-x')
  .transform((text) => text.toLowerCase())
const passed = z.array(header.refine(isPassable, impassable)).max(64).default([])
const asked = header.refine((text) => text === peerIdHeader || isPassable(text), impassable)

const plainName = z
  .string()
  .regex(/^[A-Za-z0-9-]+$/, 'a header name has letters, digits and hyphens')
  .refine((text) => mayPass(text.toLowerCase()), impassable)

/** What is wrong with a key is said at its place. */
function recordOf<T>(key: z.ZodType, value: z.ZodType<T>) {
  return z.record(z.string(), value).superRefine((all, context) => {
    for (const it of Object.keys(all)) {
      for (const { message } of key.safeParse(it).error?.issues ?? []) {
        context.addIssue({ code: 'custom', path: [it], message })
      }
    }
  })
}

export type Target =
  | { readonly via: 'unix'; readonly socketPath: string }
  | {
      readonly via: 'http' | 'https'
      readonly host: string
      readonly port: number
    }

const grammar = /^(https?):\/\/(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::(\d{1,5}))?$/

function targetOf(text: string): Target | undefined {
  const [, socketPath] = /^unix:\/\/(\/[^?#]*[^?#/])$/.exec(text) ?? []
  if (socketPath !== undefined) return { via: 'unix', socketPath }
  const [, scheme, v6, plain = ''] = grammar.exec(text) ?? []
  if (scheme === undefined) return undefined
  const via = scheme === 'https' ? 'https' : 'http'
  const port = Number(grammar.exec(text)?.[4] ?? (via === 'https' ? 443 : 80))
  return port > 65_535 ? undefined : { via, host: v6 ?? plain, port }
}

const target = z.string().transform((text, context) => {
  const read = targetOf(text)
  if (read !== undefined) return read
  const message = 'http://HOST:PORT, https://HOST:PORT or unix:///PATH; a path goes to pathPrefix'
  context.addIssue({ code: 'custom', message })
  return z.NEVER
})

const http = z
  .strictObject({
    url: target,
    // plain HTTP to another machine has to be said: who is on the way could answer in its place
    allowPlaintext: z.boolean().default(false),
    // PEM file of the roots that it is verified with; the public ones when left out
    roots: z.string().optional(),
    // stands before the path of the request
    pathPrefix: z
      .string()
      .regex(/^(?:\/[A-Za-z0-9._~!$&'()+,;=:@-]*)+$/, 'a path, without query')
      .default(''),
    // which fields of the request it is told
    includeRequestHeadersInCheck: z.array(asked).max(64).default([]),
    // what it is told besides, instead of fields of the request with these names
    includeAdditionalHeadersInCheck: recordOf(
      plainName,
      z.string().regex(/^[\x20-\x7e]*$/, 'printable ASCII'),
    ).default({}),
    // which fields of its answer the workload gets, instead of those of the request
    headersToUpstreamOnAllow: passed,
    // which the caller gets, when it is denied and with the answer of the workload
    headersToDownstreamOnDeny: passed,
    headersToDownstreamOnAllow: passed,
  })
  .superRefine(({ url, allowPlaintext, roots }, context) => {
    const problem = (field: string, message: string) =>
      context.addIssue({ code: 'custom', path: [field], message })
    if (url.via === 'http' && !allowPlaintext && !loopback.test(url.host)) {
      problem('url', 'plain HTTP to another machine; set allowPlaintext: true if that is meant')
    }
    if (roots !== undefined && url.via !== 'https') problem('roots', 'only with https://')
  })

const authorizer = z.strictObject({
  http,
  // for the whole answer
  timeout: duration.refine((ms) => ms >= 1 && ms <= 60_000, 'from 1ms to 60s'),
  // whether a request passes when it does not answer
  failOpen: z.boolean().default(false),
  // what is answered then, without failOpen
  statusOnError: z.int().min(400).max(599).default(403),
})

/** The fields of `all` that an authorizer may not set, because the proxy says by `identityHeader` who the peer is. */
export function claimsOf(
  all: Readonly<Record<string, AuthorizerSpec>>,
  identityHeader: string,
): readonly (readonly string[])[] {
  return Object.entries(all).flatMap(([name, { http }]) => {
    const lists = {
      headersToUpstreamOnAllow: http.headersToUpstreamOnAllow,
      headersToDownstreamOnDeny: http.headersToDownstreamOnDeny,
      headersToDownstreamOnAllow: http.headersToDownstreamOnAllow,
      includeAdditionalHeadersInCheck: Object.keys(http.includeAdditionalHeadersInCheck),
    }
    return Object.entries(lists)
      .filter(([, names]) => names.some((it) => it.toLowerCase() === identityHeader))
      .map(([field]) => [name, 'http', field])
  })
}

/** By the name that `spec.provider.name` of a CUSTOM policy has. */
export const authorizers = recordOf(name, authorizer).default({})

export type AuthorizerSpec = Readonly<z.infer<typeof authorizer>>
