// Envoy's CheckRequest as a question. What Envoy says of identities is not read: of the client its certificate is.
import type { ReadableHttp } from '../../policies/attributes/request.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import { readCheck } from './check-bytes.ts'
import type { Intern } from './intern.ts'
import { type Question, settingsOf } from './question.ts'

/** Of a listener, as routes and listeners say it: `context_extensions` of the filter. */
export const extensions = {
  port: 'castellan.port',
  backend: 'castellan.backend',
  identityHeader: 'castellan.identity-header',
  /** `appended`: the listener has put an address behind what the client said */
  forwardedFor: 'castellan.forwarded-for',
} as const

/**
 * As the client sent them, since hops are counted from there: without the last address of all, which the listener
 * has put there. It is not always the client's: of one on this machine Envoy says its own.
 */
function withoutAppended(fields: readonly string[]): readonly string[] {
  const last = fields.findLastIndex((it, i) => i % 2 === 0 && it === 'x-forwarded-for')
  if (last < 0) return fields
  const value = fields[last + 1] ?? ''
  const end = value.lastIndexOf(',')
  return end < 0 ? fields.toSpliced(last, 2) : fields.with(last + 1, value.slice(0, end))
}

function readAs(http: ReadableHttp | undefined, forwardedFor: string | undefined) {
  if (forwardedFor === undefined || http === undefined) return http
  const { headers } = http
  return {
    ...http,
    headers: () => withoutAppended(typeof headers === 'function' ? headers() : headers),
  }
}

function refuse(field: string, problem: string): never {
  throw new IdentityError('ERR_BAD_REQUEST', `${field}: ${problem}`, {
    fields: [{ field, problem }],
  })
}

/** Throws ERR_BAD_REQUEST: with fields for a question that means nothing, without for bytes that are none. */
export function questionIn(bytes: Buffer, intern: Intern): Question {
  const facts = readCheck(bytes, intern)
  const { settings, destinationPort, sni } = facts
  const said = settingsOf({
    port: settings.get(extensions.port),
    backend: settings.get(extensions.backend),
    identityHeader: settings.get(extensions.identityHeader),
  })
  const forwardedFor = settings.get(extensions.forwardedFor)
  if (forwardedFor !== undefined && forwardedFor !== 'appended')
    refuse(extensions.forwardedFor, 'is not "appended"')
  return {
    port: said.port,
    backend: said.backend,
    identityHeader: said.identityHeader,
    listener: destinationPort === 0 ? undefined : destinationPort,
    principal: facts.principal,
    certificate: facts.certificate,
    sourceAddress: facts.sourceAddress,
    sni: sni === '' ? undefined : sni,
    http: readAs(facts.http, forwardedFor),
  }
}
