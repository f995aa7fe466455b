// Envoy's CheckRequest as a question, by way of protobuf-es: what our own reader has to agree with.

import { extensions } from '../../../agent/authz/check-question.ts'
import { type Question, settingsOf } from '../../../agent/authz/question.ts'
import { fieldsProblem } from '../../../policies/attributes/fields.ts'
import type { RawHttp } from '../../../policies/attributes/request.ts'
import type { Address } from '../../../proto/gen/envoy/config/core/v3/address_pb.js'
import type { HeaderMap } from '../../../proto/gen/envoy/config/core/v3/base_pb.js'
import type {
  AttributeContext_HttpRequest,
  AttributeContext_Peer,
} from '../../../proto/gen/envoy/service/auth/v3/attribute_context_pb.js'
import type { CheckRequest } from '../../../proto/gen/envoy/service/auth/v3/external_auth_pb.js'
import { IdentityError } from '../../../spiffe/errors.ts'

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

type Fields = readonly (readonly [name: string, value: string])[]

/**
 * As the client sent them, since hops are counted from there: without the last address of all, which the listener
 * has put there. It is not always the client's: of one on this machine Envoy says its own.
 */
function withoutAppended(fields: Fields): Fields {
  const last = fields.findLastIndex(([name]) => name === 'x-forwarded-for')
  return fields.flatMap(([name, value], i) => {
    if (i !== last) return [[name, value] as const]
    const end = value.lastIndexOf(',')
    return end < 0 ? [] : [[name, value.slice(0, end)] as const]
  })
}

/** Without what HTTP/2 says of the request line, which is told by itself. */
function headersOf(
  { headers, headerMap }: AttributeContext_HttpRequest,
  isAppended: boolean,
): string[] {
  const all: Fields = headerMap === undefined ? Object.entries(headers) : rawFields(headerMap)
  const fields = all.filter(([name]) => !name.startsWith(':'))
  const raw = (isAppended ? withoutAppended(fields) : fields).flat()
  const problem = fieldsProblem(raw)
  if (problem !== undefined) throw new IdentityError('ERR_BAD_REQUEST', problem)
  return raw
}

function rawHttp(
  http: AttributeContext_HttpRequest | undefined,
  isAppended: boolean,
): RawHttp | undefined {
  if (http === undefined) return undefined
  const { method, path: target, host } = http
  const headers = headersOf(http, isAppended)
  return { method, target, host: host === '' ? undefined : host, headers }
}

/** Whether the listener has put an address behind what the client said. */
function isAppendedOf(setting: string | undefined): boolean {
  if (setting === undefined || setting === 'appended') return setting !== undefined
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
  const isAppended = isAppendedOf(contextExtensions[extensions.forwardedFor])
  return {
    ...settings,
    listener: portIn(destination),
    principal: destination?.principal ?? '',
    certificate: source?.certificate ?? '',
    sourceAddress: socketAddress(source)?.address,
    sni: tlsSession?.sni || undefined,
    http: rawHttp(request?.http, isAppended),
  }
}
