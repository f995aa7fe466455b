// What is needed of Envoy's CheckRequest, read from its bytes: with the merge rules of protobuf (a message again
// adds to the one before, of scalars and of a map's values the last counts), and without what nobody asks for.
// Fields are made strings once a policy looks at them.
import type { RawHttp } from '../../policies/attributes/request.ts'
import { checkField, colon, isAscii } from './field-bytes.ts'
import { inside, type Shape, text, walk } from './wire.ts'

export interface CheckFacts {
  /** `context_extensions` of the filter: what routes and listeners say */
  readonly settings: ReadonlyMap<string, string>
  readonly certificate: string
  readonly principal: string
  readonly sourceAddress: string | undefined
  /** of the proxy's end of the connection; 0 when that has none */
  readonly destinationPort: number
  readonly sni: string
  readonly http: RawHttp | undefined
}

interface Peer {
  isSocket: boolean
  address: string
  port: number
  principal: string
  certificate: string
}

interface Http {
  method: string
  target: string
  host: string
  readonly headers: Place[]
  /** the same, in the order in which they came (`encode_raw_headers`) */
  listed: Place[] | undefined
}

/** A field, where it is in the bytes. */
interface Place {
  readonly key: readonly [number, number]
  readonly value: readonly [number, number]
  /** bytes, not text */
  readonly isRaw: boolean
}

interface Draft {
  readonly source: Peer
  readonly destination: Peer
  readonly extensions: Map<string, string>
  sni: string
  http: Http | undefined
}

const socketAddress: Shape<Peer> = {
  parts: {
    2: (peer, bytes, from, to) => {
      peer.address = text(bytes, from, to)
    },
    // named_port
    4: (peer) => {
      peer.port = 0
    },
  },
  numbers: {
    3: (peer, value) => {
      peer.port = value
    },
  },
}

function becomeSocket(peer: Peer): Peer {
  if (!peer.isSocket) Object.assign(peer, { isSocket: true, address: '', port: 0 })
  return peer
}

const noSocket = (peer: Peer) => {
  peer.isSocket = false
}

const address: Shape<Peer> = {
  parts: { 1: inside(socketAddress, becomeSocket), 2: noSocket, 3: noSocket },
}

const peer: Shape<Peer> = {
  parts: {
    1: inside(address, (it) => it),
    4: (it, bytes, from, to) => {
      it.principal = text(bytes, from, to)
    },
    // what is no ASCII is no PEM either
    5: (it, bytes, from, to) => {
      it.certificate = bytes.toString('latin1', from, to)
    },
  },
}

interface Entry {
  key: readonly [number, number]
  value: readonly [number, number]
  raw: readonly [number, number]
}

const entryShape: Shape<Entry> = {
  parts: {
    1: (entry, _, from, to) => {
      entry.key = [from, to]
    },
    2: (entry, _, from, to) => {
      entry.value = [from, to]
    },
    3: (entry, _, from, to) => {
      entry.raw = [from, to]
    },
  },
}

function entryIn(bytes: Buffer, from: number, to: number): Entry {
  const entry: Entry = { key: [0, 0], value: [0, 0], raw: [0, 0] }
  walk(entry, entryShape, bytes, from, to)
  return entry
}

/** Of a map: its value is text. */
function takeField(http: Http, bytes: Buffer, from: number, to: number): void {
  const { key, value } = entryIn(bytes, from, to)
  checkField(bytes, key, value)
  if (!isAscii(bytes, ...value)) text(bytes, ...value)
  if (bytes[key[0]] !== colon) http.headers.push({ key, value, isRaw: false })
}

/** Of a list: its value is text or, where that is none, bytes. */
function takeListed(into: Place[], bytes: Buffer, from: number, to: number): void {
  const { key, value: plain, raw } = entryIn(bytes, from, to)
  const isRaw = raw[1] > raw[0]
  const value = isRaw ? raw : plain
  checkField(bytes, key, value)
  if (!isRaw && !isAscii(bytes, ...value)) text(bytes, ...value)
  if (bytes[key[0]] !== colon) into.push({ key, value, isRaw })
}

const headerMap: Shape<Place[]> = { parts: { 1: takeListed } }

function listedIn(http: Http): Place[] {
  http.listed ??= []
  return http.listed
}

const httpRequest: Shape<Http> = {
  parts: {
    2: (http, bytes, from, to) => {
      http.method = text(bytes, from, to)
    },
    3: takeField,
    4: (http, bytes, from, to) => {
      http.target = text(bytes, from, to)
    },
    5: (http, bytes, from, to) => {
      http.host = text(bytes, from, to)
    },
    13: inside(headerMap, listedIn),
  },
}

function httpIn(draft: Draft): Http {
  draft.http ??= { method: '', target: '', host: '', headers: [], listed: undefined }
  return draft.http
}

const request: Shape<Draft> = { parts: { 2: inside(httpRequest, httpIn) } }

function takeExtension(draft: Draft, bytes: Buffer, from: number, to: number): void {
  const { key, value } = entryIn(bytes, from, to)
  draft.extensions.set(text(bytes, ...key), text(bytes, ...value))
}

const tlsSession: Shape<Draft> = {
  parts: {
    1: (draft, bytes, from, to) => {
      draft.sni = text(bytes, from, to)
    },
  },
}

const attributes: Shape<Draft> = {
  parts: {
    1: inside(peer, (draft) => draft.source),
    2: inside(peer, (draft) => draft.destination),
    4: inside(request, (draft) => draft),
    10: takeExtension,
    12: inside(tlsSession, (draft) => draft),
  },
}

const checkRequest: Shape<Draft> = { parts: { 1: inside(attributes, (draft: Draft) => draft) } }

/** Names and values in turn; of two fields of one name in a map the later one is meant. */
function headersIn(bytes: Buffer, { headers, listed }: Http): readonly string[] {
  const read = ({ key, value, isRaw }: Place): [string, string] => [
    text(bytes, ...key),
    isRaw ? bytes.toString('latin1', ...value) : text(bytes, ...value),
  ]
  return listed === undefined ? [...new Map(headers.map(read))].flat() : listed.flatMap(read)
}

const nobody = (): Peer => ({
  ...{ isSocket: false, address: '', port: 0, principal: '', certificate: '' },
})

/** Throws ERR_BAD_REQUEST. */
export function readCheck(bytes: Buffer): CheckFacts {
  const draft: Draft = {
    ...{ source: nobody(), destination: nobody() },
    ...{ extensions: new Map(), sni: '', http: undefined },
  }
  walk(draft, checkRequest, bytes, 0, bytes.length)
  const { source, destination, sni, http } = draft
  let headers: readonly string[] | undefined
  return {
    settings: draft.extensions,
    certificate: source.certificate,
    principal: destination.principal,
    sourceAddress: source.isSocket ? source.address : undefined,
    destinationPort: destination.isSocket ? destination.port : 0,
    sni,
    http: http && {
      method: http.method,
      target: http.target,
      host: http.host === '' ? undefined : http.host,
      get headers() {
        headers ??= headersIn(bytes, http)
        return headers
      },
    },
  }
}
