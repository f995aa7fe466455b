// Envoy's CheckRequest as a question. What Envoy says of identities is not read: of the client its certificate is.
import { readCheck } from './check-bytes.ts'
import type { Intern } from './intern.ts'
import { type Question, settingsOf } from './question.ts'

/** Of a listener, as routes and listeners say it: `context_extensions` of the filter. */
export const extensions = {
  port: 'castellan.port',
  backend: 'castellan.backend',
  identityHeader: 'castellan.identity-header',
} as const

/** Throws ERR_BAD_REQUEST: with fields for a question that means nothing, without for bytes that are none. */
export function questionIn(bytes: Buffer, intern: Intern): Question {
  const { settings, destinationPort, ...facts } = readCheck(bytes, intern)
  const said = settingsOf({
    port: settings.get(extensions.port),
    backend: settings.get(extensions.backend),
    identityHeader: settings.get(extensions.identityHeader),
  })
  const listener = destinationPort === 0 ? undefined : destinationPort
  return { ...said, ...facts, listener, sni: facts.sni === '' ? undefined : facts.sni }
}
