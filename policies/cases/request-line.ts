// A request of `castellan policy eval`: one JSON object on a line.

import { isIP } from 'node:net'
import { z } from 'zod'
import { type Path, problemsOf } from '../../documents/yaml.ts'
import { isSpiffeId } from '../../spiffe/id.ts'
import { fieldsProblem } from '../attributes/fields.ts'
import { type Claims, type Destination, type RawHttp, readAddress } from '../attributes/request.ts'
import type { Connected } from '../evaluate.ts'
import type { Mesh } from '../language/mesh.ts'

const ip = z.string().refine((text) => isIP(text) !== 0, 'no IP address')
const port = z.int().min(0).max(65_535)
const pairs = z.array(z.tuple([z.string(), z.string()])).max(1000)

const http = z.strictObject({
  method: z.string().optional(),
  host: z.string().optional(),
  path: z.string().optional(),
  headers: pairs.optional(),
})

const requestLine = z.strictObject({
  id: z.union([z.string(), z.number()]).optional(),
  source: z
    .strictObject({ principal: z.string().optional(), ip: ip.optional(), port: port.optional() })
    .optional(),
  destination: z
    .strictObject({
      principal: z.string().optional(),
      ip: ip.optional(),
      port: port.optional(),
      namespace: z.string().optional(),
      labels: z.record(z.string(), z.string()).optional(),
    })
    .optional(),
  remoteIp: ip.optional(),
  tls: z.strictObject({ sni: z.string().optional() }).optional(),
  http: http.optional(),
  raw: z.string().optional(),
  h2: pairs.optional(),
  jwt: z.strictObject({ claims: z.record(z.string(), z.unknown()) }).optional(),
})

export type RequestLine = z.infer<typeof requestLine>

/** How the request itself was given. */
export type Asked =
  | { readonly as: 'http'; readonly raw: RawHttp; readonly claims: Claims | undefined }
  | { readonly as: 'h2'; readonly fields: readonly string[] }
  | { readonly as: 'raw'; readonly bytes: Buffer }
  | { readonly as: 'tcp' }

export interface Case {
  readonly id: string | number | undefined
  readonly connected: Connected
  readonly asked: Asked
}

/** A line that is no valid request; `id` as far as it could be read. */
export interface BadCase {
  readonly id: string | number | undefined
  readonly problem: string
  /** of what has not the form of a request at all; undefined for a value that is none */
  readonly misread?: { readonly path: Path; readonly problem: string }
}

function idOf(value: unknown): string | number | undefined {
  return z.object({ id: z.union([z.string(), z.number()]) }).safeParse(value).data?.id
}

function misreadOf({ issues }: z.ZodError): NonNullable<BadCase['misread']> {
  const [first = { path: [], problem: 'no request' }] = problemsOf(issues)
  return first
}

function problemOf(
  { http: plain, raw, h2, jwt, source, destination }: RequestLine,
  { profile }: Mesh,
) {
  if ([plain, raw, h2].filter((it) => it !== undefined).length > 1) {
    return 'give one of http, raw and h2'
  }
  if (jwt !== undefined && plain === undefined) return 'jwt goes with http'
  if (raw !== undefined && !/^[A-Za-z0-9+/]*={0,2}$/.test(raw)) return 'raw: no base64'
  // Istio compares bytes, whatever they are
  const isOdd = source?.principal !== undefined && !isSpiffeId(source.principal)
  if (isOdd && profile === 'strict') {
    return 'source.principal: no SPIFFE ID'
  }
  if (destination?.principal !== undefined && !isSpiffeId(destination.principal)) {
    return 'destination.principal: no SPIFFE ID'
  }
  const fields = plain?.headers?.flat() ?? []
  return fieldsProblem(fields)
}

/** Destinations that are the same are one object, so that their guard is found at once. */
export type Destinations = Map<string, Destination>

function destinationOf(line: RequestLine, mesh: Mesh, known: Destinations): Destination {
  const {
    principal,
    ip: address,
    port: number,
    namespace = 'default',
    labels = {},
  } = line.destination ?? {}
  const key = JSON.stringify(line.destination ?? {})
  const kept = known.get(key)
  if (kept !== undefined) return kept
  const made: Destination = {
    id: principal !== undefined && isSpiffeId(principal) ? principal : undefined,
    namespace,
    labels,
    ip: address === undefined ? undefined : readAddress(address, mesh),
    port: number,
  }
  if (known.size > 10_000) known.clear()
  known.set(key, made)
  return made
}

function connectedOf(line: RequestLine, mesh: Mesh, known: Destinations): Connected {
  const { source, remoteIp, tls } = line
  return {
    source: source?.principal,
    sourceIp: source?.ip === undefined ? undefined : readAddress(source.ip, mesh),
    remoteIp: remoteIp === undefined ? undefined : readAddress(remoteIp, mesh),
    destination: destinationOf(line, mesh, known),
    sni: tls?.sni,
  }
}

function askedOf({ http: plain, raw, h2, jwt }: RequestLine): Asked {
  if (raw !== undefined) return { as: 'raw', bytes: Buffer.from(raw, 'base64') }
  if (h2 !== undefined) return { as: 'h2', fields: h2.flat() }
  if (plain === undefined) return { as: 'tcp' }
  const { method = '', path = '', host, headers = [] } = plain
  return {
    as: 'http',
    raw: { method, target: path, host, headers: headers.flat() },
    claims: jwt?.claims,
  }
}

export function readCase(text: string, mesh: Mesh, known: Destinations): Case | BadCase {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return { id: undefined, problem: 'no JSON' }
  }
  const parsed = requestLine.safeParse(value)
  if (!parsed.success) {
    const misread = misreadOf(parsed.error)
    const place = misread.path.join('.') || 'the request'
    return { id: idOf(value), problem: `${place}: ${misread.problem}`, misread }
  }
  const line = parsed.data
  const problem = problemOf(line, mesh)
  if (problem !== undefined) return { id: line.id, problem }
  return { id: line.id, connected: connectedOf(line, mesh, known), asked: askedOf(line) }
}
