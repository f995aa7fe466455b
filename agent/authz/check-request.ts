// Envoy's CheckRequest as a question. What Envoy says of identities is not read: of the client its certificate is.

import { fieldsProblem } from '../../policies/attributes/fields.ts'
import type { RawHttp } from '../../policies/attributes/request.ts'
import type { Address } from '../../proto/gen/envoy/config/core/v3/address_pb.js'
import type { HeaderMap } from '../../proto/gen/envoy/config/core/v3/base_pb.js'
import type {
  AttributeContext_HttpRequest,
  AttributeContext_Peer,
} from '../../proto/gen/envoy/service/auth/v3/attribute_context_pb.js'
import type { CheckRequest } from '../../proto/gen/envoy/service/auth/v3/external_auth_pb.js'
import { IdentityError } from '../../spiffe/errors.ts'
import { type Question, settingsOf } from './question.ts'

/** Of a listener, as routes and listeners say it: `context_extensions` of the filter. */
export const extensions = {
  port: 'castellan.port',
  backend: 'castellan.backend',
  identityHeader: 'castellan.identity-header',
  /** `appended`: the listener has put the client's address behind what the client said */
  forwardedFor: 'castellan.forwarded-for',
} as const

function socketAddress(peer: AttributeContext_Peer | undefined) {
  const address: Address['address'] | undefined = peer?.address?.address
  return address?.case === 'socketAddress' ? address.value : undefined
}

function portIn(peer: AttributeContext_Peer | undefined): number | undefined {
  const specifier = socketAddress(peer)?.portSpecifier
  return specifier?.case === 'portValue' && specifier.value !== 0 ? specifier.value : undefined
}

/** Byte by byte: what is no UTF-8 is sent like this alone (`encode_raw_headers`). */
const rawFields = ({ headers }: HeaderMap): [string, string][] =>
  headers.map(({ key, value, rawValue }) => [
    key,
    rawValue.length > 0 ? Buffer.from(rawValue).toString('latin1') : value,
  ])

/** As the client sent it: hops are counted from there. Envoy makes one field of many. */
function withoutOwn([name, value]: [string, string], client: string): [string, string][] {
  if (name !== 'x-forwarded-for') return [[name, value]]
  const entries = value.split(',')
  if (entries.pop() !== client)
    throw new IdentityError('ERR_BAD_REQUEST', `${name} does not end in the client's address`)
  return entries.length === 0 ? [] : [[name, entries.join(',')]]
}

/** Without what HTTP/2 says of the request line, which is told by itself. */
function headersOf(
  { headers, headerMap }: AttributeContext_HttpRequest,
  appended: string | undefined,
): string[] {
  const all = headerMap === undefined ? Object.entries(headers) : rawFields(headerMap)
  const fields = all.filter(([name]) => !name.startsWith(':'))
  const raw = appended === undefined ? fields : fields.flatMap((it) => withoutOwn(it, appended))
  const flat = raw.flat()
  const problem = fieldsProblem(flat)
  if (problem !== undefined) throw new IdentityError('ERR_BAD_REQUEST', problem)
  return flat
}

/** `appended` is what stands behind all others in X-Forwarded-For. */
function rawHttp(
  http: AttributeContext_HttpRequest | undefined,
  appended: string | undefined,
): RawHttp | undefined {
  if (http === undefined) return undefined
  const { method, path: target, host } = http
  return {
    method,
    target,
    host: host === '' ? undefined : host,
    headers: headersOf(http, appended),
  }
}

function appendedOf(setting: string | undefined, client: string | undefined): string | undefined {
  if (setting === undefined) return undefined
  if (setting === 'appended' && client !== undefined) return client
  throw new IdentityError('ERR_BAD_REQUEST', `${extensions.forwardedFor}: is not "appended"`)
}

/** Throws ERR_BAD_REQUEST for settings that say nothing, and for fields that no parser lets pass. */
export function questionOf({ attributes }: CheckRequest): Question {
  const { source, destination, request, contextExtensions = {}, tlsSession } = attributes ?? {}
  const settings = settingsOf({
    port: contextExtensions[extensions.port],
    backend: contextExtensions[extensions.backend],
    identityHeader: contextExtensions[extensions.identityHeader],
  })
  const sourceAddress = socketAddress(source)?.address
  const appended = appendedOf(contextExtensions[extensions.forwardedFor], sourceAddress)
  return {
    ...settings,
    listener: portIn(destination),
    principal: destination?.principal ?? '',
    certificate: source?.certificate ?? '',
    sourceAddress,
    sni: tlsSession?.sni || undefined,
    http: rawHttp(request?.http, appended),
  }
}
