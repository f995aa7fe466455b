// What fields and conditions are compared with, and when a comparison with several readings holds.
import type { Address } from './address.ts'
import { blockHolds, parseAddress } from './address.ts'
import type { RequestPrincipal } from './claims.ts'
import { claimPath, claimTexts, matchesRequestPrincipal } from './claims.ts'
import { asSent, type HostReading, hasPort, inParts, splitHost } from './host.ts'
import * as identity from './identity.ts'
import type { Mesh } from './mesh.ts'
import {
  forwardedReadings,
  normalize,
  type PathReading,
  suspectReadings,
  upperEscapes,
} from './path.ts'
import { matchesForm, matchesPath } from './pattern.ts'
import { type HttpView, type OracleRequest, remoteAddress } from './request.ts'

/** Who asks: Istio, or strict for a rule that denies or allows. */
export type Mode = 'istio' | 'strict-deny' | 'strict-allow'

export interface Context {
  readonly mode: Mode
  readonly mesh: Mesh
  readonly request: OracleRequest
  readonly http: HttpView | undefined
  readonly policyNamespace: string
  readonly spaceDelimited: readonly string[]
}

export interface Attribute {
  /** §4.9: unusable on TCP */
  readonly httpOnly: boolean
  holds(values: readonly string[], negated: boolean, context: Context): boolean
}

/** No reading: the attribute is absent. */
function quantify<Reading>(
  readings: readonly Reading[],
  matchesAny: (reading: Reading) => boolean,
  negated: boolean,
  mode: Mode,
): boolean {
  if (readings.length === 0) return negated && mode !== 'strict-allow'
  if (mode === 'istio') return readings.some(matchesAny) !== negated
  const satisfies = (reading: Reading) => matchesAny(reading) !== negated
  return mode === 'strict-deny' ? readings.some(satisfies) : readings.every(satisfies)
}

function attribute<Reading>(
  httpOnly: boolean,
  readings: (context: Context) => readonly Reading[],
  matches: (pattern: string, reading: Reading, context: Context) => boolean,
): Attribute {
  return {
    httpOnly,
    holds: (values, negated, context) =>
      quantify(
        readings(context),
        (reading) => values.some((value) => matches(value, reading, context)),
        negated,
        context.mode,
      ),
  }
}

const present = <Value>(value: Value | undefined): readonly Value[] =>
  value === undefined ? [] : [value]

const isStrict = ({ mode }: Context): boolean => mode !== 'istio'

const address = (text: string | undefined, context: Context): readonly Address[] =>
  text === undefined ? [] : present(parseAddress(text, isStrict(context)))

const ip = (text: (context: Context) => string | undefined): Attribute =>
  attribute(
    false,
    (context) => address(text(context), context),
    (block, found, context) => blockHolds(block, found, isStrict(context)),
  )

const principal = ({ request }: Context): readonly string[] => present(request.source?.principal)

/**
 * A part of an ID: for Istio anywhere in it, of any trust domain. In strict a DENY reads it as widely, and
 * its negation exempts only IDs of the own trust domains and of the exact form, which are all that an ALLOW
 * speaks of.
 */
function partOfId(
  matches: (pattern: string, principal: string, context: Context) => boolean,
): Attribute {
  return {
    httpOnly: false,
    holds(values, negated, context) {
      const isOfForm = (id: string) => identity.isOwn(id, context.mesh) && identity.hasForm(id)
      const matchesAny = (id: string) => values.some((value) => matches(value, id, context))
      const ids = principal(context)
      switch (context.mode) {
        case 'istio':
          return ids.some(matchesAny) !== negated
        case 'strict-allow':
          return ids.some((id) => isOfForm(id) && matchesAny(id) !== negated)
        case 'strict-deny':
          return negated ? !ids.some((id) => isOfForm(id) && matchesAny(id)) : ids.some(matchesAny)
      }
    },
  }
}

const reader = (context: Context) => ({
  claims: context.request.jwt?.claims,
  spaceDelimited: context.spaceDelimited,
  strict: isStrict(context),
})

/** RFC 7519 §4.1: issuer and subject are strings; what is not was not said. */
const texts = (claim: unknown): readonly string[] => (typeof claim === 'string' ? [claim] : [])

function requestPrincipal(context: Context): readonly RequestPrincipal[] {
  const claims = context.request.jwt?.claims
  if (claims === undefined) return []
  const [issuers, subjects] = [texts(claims.iss), texts(claims.sub)]
  const isWhole = issuers.length > 0 && subjects.length > 0
  return context.mode === 'strict-allow' && !isWhole ? [] : [{ issuers, subjects }]
}

/** One reading, the set of the claim's values: both profiles ask whether an element matches. */
const claim = (path: readonly string[]): Attribute =>
  attribute(
    true,
    (context) => {
      const values = claimTexts(path, reader(context))
      return values.length === 0 ? [] : [values]
    },
    (pattern, values) => values.some((value) => matchesForm(pattern, value)),
  )

/** One host that a DENY may name in two ways: in its parts, or as sent. */
function hostReadings({ http, mode }: Context): readonly (readonly HostReading[])[] {
  if (http?.host === undefined) return []
  const parts = splitHost(http.host)
  if (mode === 'istio' || parts === undefined) return [[asSent(http.host)]]
  return [mode === 'strict-deny' ? [inParts(parts), asSent(http.host)] : [inParts(parts)]]
}

function pathReadings({ http, mode, mesh }: Context): readonly PathReading[] {
  if (http?.path === undefined) return []
  if (mode === 'strict-deny') return suspectReadings(http.path, mesh.backend)
  if (mode === 'strict-allow') return forwardedReadings(http.path, mesh.backend)
  return [{ text: normalize(http.path, mesh.pathNormalization), caseless: false }]
}

function headerValues(name: string, context: Context): readonly string[] {
  const { http } = context
  if (http === undefined) return []
  if (name === ':authority' || name === 'host') return present(http.host)
  if (name === ':method') return [http.method]
  return http.headers.filter((each) => each[0] === name).map(([, value]) => value)
}

/** For a header a lone star asks for presence, an empty value included (§4.4). */
const plainHeader = (name: string): Attribute =>
  attribute(
    true,
    (context) => headerValues(name, context),
    (pattern, value) => pattern === '*' || matchesForm(pattern, value),
  )

/** In strict the host is compared as `hosts` does it, whatever it is called. */
function header(name: string): Attribute {
  const plain = plainHeader(name)
  if (name === ':path') return target
  if (name !== ':authority' && name !== 'host') return plain
  return {
    httpOnly: true,
    holds: (values, negated, context) =>
      (isStrict(context) ? hosts : plain).holds(values, negated, context),
  }
}

const hosts = attribute(true, hostReadings, (pattern, readings) =>
  readings.some(({ whole, part }) =>
    matchesForm(pattern.toLowerCase(), hasPort(pattern) ? whole : part),
  ),
)

/** `:path`: the path in its readings, with the query. */
const target = attribute(true, pathReadings, (pattern, { text, caseless }, context) => {
  const wanted = isStrict(context) ? upperEscapes(pattern) : pattern
  const query = context.http?.query ?? ''
  const whole = `${text}${isStrict(context) ? upperEscapes(query) : query}`
  return caseless
    ? matchesForm(wanted.toLowerCase(), whole.toLowerCase())
    : matchesForm(wanted, whole)
})

/** Fields of sources and operations, without their `not`. */
export const fields: Readonly<Record<string, Attribute>> = {
  principals: attribute(false, principal, (pattern, id, { mesh }) =>
    identity.matchesPrincipal(pattern, id, mesh),
  ),
  namespaces: partOfId(identity.matchesNamespace),
  serviceAccounts: partOfId((pattern, id, { policyNamespace }) =>
    identity.matchesServiceAccount(pattern, id, policyNamespace),
  ),
  trustDomains: attribute(false, principal, (pattern, id, context) =>
    // in strict an ID that is nothing but a trust domain is of that trust domain
    identity.matchesTrustDomain(pattern, isStrict(context) ? `${id}/` : id, context.mesh),
  ),
  requestPrincipals: attribute(true, requestPrincipal, (pattern, found, context) =>
    matchesRequestPrincipal(pattern, found, isStrict(context)),
  ),
  ipBlocks: ip(({ request }) => request.source?.ip),
  remoteIpBlocks: ip((context) =>
    remoteAddress(context.request, context.http, context.mesh, isStrict(context)),
  ),
  hosts,
  ports: attribute(
    false,
    ({ request }) => present(request.destination?.port),
    (port, found) => Number(port) === found,
  ),
  methods: attribute(true, ({ http }) => present(http?.method), matchesForm),
  paths: attribute(true, pathReadings, (pattern, reading, context) =>
    isStrict(context)
      ? matchesPath(upperEscapes(pattern), reading, true)
      : matchesPath(pattern, reading, context.mesh.pathNormalization !== 'none'),
  ),
}

/** In strict without case, as names of hosts are. */
const sni = attribute(
  false,
  ({ request }) => present(request.tls?.sni),
  (pattern, name, context) =>
    isStrict(context)
      ? matchesForm(pattern.toLowerCase(), name.toLowerCase())
      : matchesForm(pattern, name),
)
const destinationIp = ip(({ request }) => request.destination?.ip)
/** Dynamic metadata of Envoy's filters, which no request of this form carries: strict fails closed. */
const unknown: Attribute = {
  httpOnly: false,
  holds: (_values, negated, { mode }) => (mode === 'istio' ? negated : mode === 'strict-deny'),
}

const keys: Readonly<Record<string, Attribute | undefined>> = {
  'source.ip': fields.ipBlocks,
  'remote.ip': fields.remoteIpBlocks,
  'source.namespace': fields.namespaces,
  'source.principal': fields.principals,
  'source.serviceAccount': fields.serviceAccounts,
  'source.trustDomain': fields.trustDomains,
  'request.auth.principal': fields.requestPrincipals,
  'request.auth.audiences': claim(['aud']),
  'request.auth.presenter': claim(['azp']),
  'destination.ip': destinationIp,
  'destination.port': fields.ports,
  'connection.sni': sni,
}

/** The attribute of a key of `when` (§4.8); undefined: a key that nobody knows. */
export function attributeOfKey(key: string): Attribute | undefined {
  if (Object.hasOwn(keys, key)) return keys[key]
  if (key.startsWith('request.auth.claims[')) return claim(claimPath(key))
  if (key.startsWith('experimental.envoy.filters.')) return unknown
  const [, name] = /^request\.headers\[(.+)\]$/.exec(key) ?? []
  return name === undefined ? undefined : header(name.toLowerCase())
}
