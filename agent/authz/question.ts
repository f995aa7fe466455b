// What a proxy asks, whatever it speaks; and the settings of a listener that it passes on with each question.

import type { ReadableHttp } from '../../policies/attributes/request.ts'
import { type Backend, backend as backends } from '../../policies/language/mesh.ts'
import { identityHeader } from '../../proxy-spec/decisions.ts'
import { peerIdHeader } from '../../proxy-spec/header-names.ts'
import { IdentityError } from '../../spiffe/errors.ts'

/** What the configuration of the proxy says, the same for each request of a listener. */
export interface Settings {
  /** the destination port that policies see */
  readonly port: number | undefined
  /** how the workload reads paths; the mesh's where nothing is said */
  readonly backend: Backend | undefined
  /** by which the workload is told who asks */
  readonly identityHeader: string
}

export interface Question extends Settings {
  /** the port at which the client arrived, where no port is set */
  readonly listener: number | undefined
  /** which of its own identities the process speaks for; empty is the default one */
  readonly principal: string
  /** of the client: PEM, URL-encoded; empty when it has shown none */
  readonly certificate: string
  /** of the client's end of the connection */
  readonly sourceAddress: string | undefined
  readonly sni: string | undefined
  /** undefined on a TCP connection */
  readonly http: ReadableHttp | undefined
}

export interface SettingTexts {
  readonly port: string | undefined
  readonly backend: string | undefined
  readonly identityHeader: string | undefined
}

function refuse(field: string, problem: string): never {
  throw new IdentityError('ERR_BAD_REQUEST', `${field}: ${problem}`, {
    fields: [{ field, problem }],
  })
}

function portOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  const port = /^[1-9]\d{0,4}$/.test(text) ? Number(text) : Number.NaN
  return port <= 65_535 ? port : refuse('port', 'is no port number')
}

function backendOf(text: string | undefined): Backend | undefined {
  if (text === undefined) return undefined
  const read = backends.safeParse(text)
  return read.success ? read.data : refuse('backend', `is none of ${backends.options.join(', ')}`)
}

function headerOf(text: string | undefined): string {
  if (text === undefined) return peerIdHeader
  const read = identityHeader.safeParse(text)
  if (read.success) return read.data
  return refuse('identity-header', read.error.issues[0]?.message ?? 'is no header name')
}

const none: SettingTexts = { port: undefined, backend: undefined, identityHeader: undefined }
const usual: Settings = { port: undefined, backend: undefined, identityHeader: peerIdHeader }

/** Throws ERR_BAD_REQUEST: what is not understood is never guessed. */
export function settingsOf({ port, backend, identityHeader }: SettingTexts = none): Settings {
  if (port === undefined && backend === undefined && identityHeader === undefined) return usual
  return {
    port: portOf(port),
    backend: backendOf(backend),
    identityHeader: headerOf(identityHeader),
  }
}
