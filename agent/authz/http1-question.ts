// The check over HTTP/1.1. What a proxy knows of a request it says in five fields, and says all of them: one that
// a configuration forgets could be sent by a client. What the configuration itself says is in the query. All
// other fields are those of the request that is decided about.
import type { IncomingMessage } from 'node:http'
import { fieldsProblem } from '../../policies/attributes/fields.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import { type Question, settingsOf } from './question.ts'

export const facts = {
  method: 'x-castellan-method',
  uri: 'x-castellan-uri',
  host: 'x-castellan-host',
  /** PEM, URL-encoded, or `none` */
  certificate: 'x-castellan-certificate',
  source: 'x-castellan-source',
} as const

const prefix = 'x-castellan-'
const names: ReadonlySet<string> = new Set(Object.values(facts))
const absent = 'none'

/** of the question itself, not of the request that it is about */
const ofThisHop: ReadonlySet<string> = new Set([
  'host',
  'connection',
  'keep-alive',
  'content-length',
  'transfer-encoding',
  'te',
])

const settings: ReadonlySet<string> = new Set(['port', 'backend', 'identity-header', 'principal'])

function refuse(field: string, problem: string): never {
  throw new IdentityError('ERR_BAD_REQUEST', `${field}: ${problem}`, {
    fields: [{ field, problem }],
  })
}

/** The facts by name, and the fields of the request. */
function sorted(raw: readonly string[]) {
  const told = new Map<string, string>()
  const headers: string[] = []
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const [name = '', value = ''] = [raw[i], raw[i + 1]]
    const lower = name.toLowerCase()
    if (ofThisHop.has(lower)) continue
    if (!lower.startsWith(prefix)) {
      headers.push(name, value)
      continue
    }
    if (!names.has(lower)) refuse(lower, 'is nothing that is known here')
    if (told.has(lower)) refuse(lower, 'is said twice')
    told.set(lower, value)
  }
  return { told, headers }
}

function settingsIn(url: string) {
  const { pathname, searchParams } = new URL(url, 'http://castellan')
  if (pathname !== '/check') throw new IdentityError('ERR_NOT_FOUND', 'ask at /check')
  for (const name of searchParams.keys()) {
    if (!settings.has(name)) refuse(name, 'is nothing that is known here')
    if (searchParams.getAll(name).length > 1) refuse(name, 'is said twice')
  }
  const text = (name: string) => searchParams.get(name) ?? undefined
  const port = text('port') ?? refuse('port', 'is missing: say /check?port=PORT-OF-THE-WORKLOAD')
  const read = settingsOf({
    port,
    backend: text('backend'),
    identityHeader: text('identity-header'),
  })
  return { ...read, principal: text('principal') ?? '' }
}

/** Throws ERR_BAD_REQUEST naming what is wrong, ERR_NOT_FOUND for another path. */
export function questionIn({ url = '', rawHeaders }: IncomingMessage): Question {
  const asked = settingsIn(url)
  const { told, headers } = sorted(rawHeaders)
  const problem = fieldsProblem(headers)
  if (problem !== undefined) refuse('fields', problem)
  const fact = (name: string) => told.get(name) || refuse(name, 'is missing')
  const certificate = fact(facts.certificate)
  return {
    ...asked,
    listener: undefined,
    certificate: certificate === absent ? '' : certificate,
    sourceAddress: fact(facts.source),
    sni: undefined,
    http: {
      method: fact(facts.method),
      target: fact(facts.uri),
      host: fact(facts.host),
      headers,
    },
  }
}
