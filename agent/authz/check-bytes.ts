// What is needed of Envoy's CheckRequest, read from its bytes: with the merge rules of protobuf (a message again
// adds to the one before, of scalars and of a map's values the last counts), and without what nobody asks for.
// Fields are made strings once a policy looks at them.
import type { ReadableHttp } from '../../policies/attributes/request.ts'
import { checkName, checkValue, colon } from './field-bytes.ts'
import type { Intern } from './intern.ts'
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
  readonly http: ReadableHttp | undefined
}

interface Peer {
  isSocket: boolean
  address: string
  port: number
  principal: string
  certificate: string
  readonly intern: Intern
}

interface Http {
  method: string
  target: string
  host: string
  /** of a map: where names and values are, four places each */
  readonly headers: number[]
  /** the same, in the order in which they came (`encode_raw_headers`); values that are bytes end below zero */
  listed: number[] | undefined
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
  if (peer.isSocket) return peer
  peer.isSocket = true
  peer.address = ''
  peer.port = 0
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
      it.certificate = it.intern(bytes, from, to)
    },
  },
}

interface Entry {
  k0: number
  k1: number
  v0: number
  v1: number
  r0: number
  r1: number
}

const entryShape: Shape<Entry> = {
  parts: {
    1(entry, _, from, to) {
      entry.k0 = from
      entry.k1 = to
    },
    2(entry, _, from, to) {
      entry.v0 = from
      entry.v1 = to
    },
    3(entry, _, from, to) {
      entry.r0 = from
      entry.r1 = to
    },
  },
}

const ofKey = 0x0a
const ofValue = 0x12

/** Where name and value of an entry are. Most are a short name and a short value, in that order. */
function entryIn(bytes: Buffer, from: number, to: number): Entry {
  const length = bytes[from + 1] ?? 128
  const k1 = from + 2 + length
  const rest = bytes[k1 + 1] ?? 128
  const isUsual = bytes[from] === ofKey && bytes[k1] === ofValue && length < 128 && rest < 128
  if (isUsual && k1 + 2 + rest === to) return { k0: from + 2, k1, v0: k1 + 2, v1: to, r0: 0, r1: 0 }
  const entry = { k0: 0, k1: 0, v0: 0, v1: 0, r0: 0, r1: 0 }
  walk(entry, entryShape, bytes, from, to)
  return entry
}

/** Of a map: its value is text. */
function takeField(http: Http, bytes: Buffer, from: number, to: number): void {
  const { k0, k1, v0, v1 } = entryIn(bytes, from, to)
  checkName(bytes, k0, k1)
  if (!checkValue(bytes, v0, v1)) text(bytes, v0, v1)
  if (bytes[k0] !== colon) http.headers.push(k0, k1, v0, v1)
}

/** Of a list: its value is text or, where that is none, bytes. */
function takeListed(into: number[], bytes: Buffer, from: number, to: number): void {
  const { k0, k1, v0, v1, r0, r1 } = entryIn(bytes, from, to)
  checkName(bytes, k0, k1)
  if (r1 > r0) checkValue(bytes, r0, r1)
  else if (!checkValue(bytes, v0, v1)) text(bytes, v0, v1)
  if (bytes[k0] === colon) return
  if (r1 > r0) into.push(k0, k1, r0, -r1)
  else into.push(k0, k1, v0, v1)
}

const headerMap: Shape<number[]> = { parts: { 1: takeListed } }

function listedIn(http: Http): number[] {
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
  const { k0, k1, v0, v1 } = entryIn(bytes, from, to)
  draft.extensions.set(text(bytes, k0, k1), text(bytes, v0, v1))
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
  const places = listed ?? headers
  const fields: string[] = []
  const known = new Map<string, number>()
  for (let i = 0; i + 3 < places.length; i += 4) {
    const [k0 = 0, k1 = 0, v0 = 0, v1 = 0] = [
      places[i],
      places[i + 1],
      places[i + 2],
      places[i + 3],
    ]
    const name = text(bytes, k0, k1)
    const value = v1 < 0 ? bytes.toString('latin1', v0, -v1) : text(bytes, v0, v1)
    const at = listed === undefined ? known.get(name) : undefined
    if (at === undefined) known.set(name, fields.push(name, value) - 1)
    else fields[at] = value
  }
  return fields
}

const nobody = (intern: Intern): Peer => ({
  ...{ isSocket: false, address: '', port: 0, principal: '', certificate: '' },
  intern,
})

/** Throws ERR_BAD_REQUEST. */
export function readCheck(bytes: Buffer, intern: Intern): CheckFacts {
  const draft: Draft = {
    ...{ source: nobody(intern), destination: nobody(intern) },
    ...{ extensions: new Map(), sni: '', http: undefined },
  }
  walk(draft, checkRequest, bytes, 0, bytes.length)
  const { source, destination, sni, http } = draft
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
      headers: () => headersIn(bytes, http),
    },
  }
}
