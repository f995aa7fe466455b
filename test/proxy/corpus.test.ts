// The corpus' requests as bytes, on the mutual TLS of a sidecar: what it passes on, denies and refuses.
import { readFileSync } from 'node:fs'
import { connect as connectHttp2, createServer as createHttp2Server } from 'node:http2'
import { connect as connectTcp } from 'node:net'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { parse } from 'yaml'
import type { MeshState } from '../../decisions/mesh.ts'
import { compile } from '../../policies/compile.ts'
import { meshDocument, type Profile } from '../../policies/language/mesh.ts'
import { readPolicies } from '../../policies/language/read.ts'
import { denyNothing } from '../../spiffe/deny-list.ts'
import { parseSpiffeId } from '../../spiffe/id.ts'
import {
  type CorpusCase,
  corpusFixtures,
  corpusProblem,
  type Fixture,
  type Got,
  isExpected,
} from '../support/corpus.ts'
import { contextFor, createTestSource, makeTestAuthority, stateOf } from '../support/mesh.ts'
import { inboundTo } from '../support/shop.ts'
import {
  type App,
  dial,
  listening,
  peerOptions,
  type Sidecar,
  startApp,
  startSidecar,
} from '../support/sidecar.ts'

// whose namespace is that of the cases
const own = 'spiffe://td/ns/app/sa/web'
const authority = makeTestAuthority('td')
const source = createTestSource(contextFor(authority.issue(own), authority.bundle))
const server = { authority, id: own }

/** What reached the workload since it was asked last. */
let reached = 0
const taken = () => {
  const count = reached
  reached = 0
  return count
}

const open: (App | Sidecar)[] = []
let http1: Sidecar
let http2: Sidecar

const start = (port: number) =>
  startSidecar({ inbound: [inboundTo(port)] }, { source, state: stateOf('[]') })

beforeAll(async () => {
  const plain = await startApp((_, response) => {
    reached++
    response.end('from the workload')
  })
  // gRPC goes on by HTTP/2
  const grpc = createHttp2Server()
  grpc.on('stream', (stream) => {
    reached++
    stream.respond({ 'content-type': 'application/grpc', 'grpc-status': '0' }, { endStream: true })
  })
  const calls = await listening(grpc)
  http1 = await start(plain.port)
  http2 = await start(calls.port)
  open.push(http1, http2, plain, calls)
})
afterAll(async () => {
  for (const it of open) await it[Symbol.asyncDispose]()
})

// the networks of the corpus for documentation, as addresses that a socket here can have
const onLoopback = (text: string) =>
  text.replaceAll('198.51.100.', '127.100.0.').replaceAll('192.0.2.', '127.2.0.')

function stateFor(fixture: Fixture, profile: Profile): MeshState {
  const read = (name: string) => onLoopback(readFileSync(fixture.file(name), 'utf8'))
  const mesh = { profile, ...meshDocument.parse(parse(read('mesh.yaml'))) }
  const documents = readPolicies([{ name: 'policies.yaml', text: read('policies.yaml') }])
  const labels = fixture.cases[0]?.request.destination.labels ?? {}
  return {
    policies: compile(documents, { mesh }),
    endpoints: new Map(),
    denyList: denyNothing,
    labels: new Map([[parseSpiffeId(own), labels]]),
  }
}

/** Why a case cannot be had on a socket. */
function obstacle({ request }: CorpusCase): string | undefined {
  const { remoteIp, source: { principal } = {}, destination } = request
  if (remoteIp !== undefined) return 'the proxy derives the remote address itself'
  if (principal === undefined) return 'no identity, and mutual TLS demands one'
  if (destination.namespace !== 'app') return 'another namespace'
  return undefined
}

const svids = new Map<string, ReturnType<typeof authority.issue>>()

function dialAs(sidecar: Sidecar, { request }: CorpusCase, protocol: 'h2' | 'http/1.1') {
  const { principal = '', ip = '' } = request.source ?? {}
  const svid = svids.get(principal) ?? authority.issue(principal)
  svids.set(principal, svid)
  const from = { host: '127.0.0.1', port: sidecar.port, localAddress: onLoopback(ip) }
  return dial({
    ...peerOptions(sidecar.port, svid, server),
    socket: connectTcp(from),
    ALPNProtocols: [protocol],
  })
}

/** 0 for a connection or a stream that ended without an answer. */
function gotFrom(status: number): Got {
  if (taken() > 0) return { decision: 'allow' }
  return { decision: status === 403 ? 'deny' : 'reject', status }
}

/** The status of the first answer that is final. */
async function askHttp1(it: CorpusCase, raw: string): Promise<number> {
  const socket = await dialAs(http1, it, 'http/1.1')
  const answered = Promise.withResolvers<number>()
  let text = ''
  socket.on('data', (part) => {
    text += part.toString('latin1')
    const [, status] = /^HTTP\/1\.1 ([2-5]\d\d) /.exec(text) ?? []
    if (status !== undefined) answered.resolve(Number(status))
  })
  socket.once('close', () => answered.resolve(0))
  socket.write(Buffer.from(raw, 'base64'))
  const status = await answered.promise
  socket.destroy()
  return status
}

// google.rpc.Code of what a denial and a refusal are for gRPC
const httpStatuses: Readonly<Record<string, number>> = { 0: 200, 3: 400, 7: 403, 16: 401 }

async function askHttp2(
  it: CorpusCase,
  fields: NonNullable<CorpusCase['request']['h2']>,
): Promise<number> {
  const socket = await dialAs(http2, it, 'h2')
  const session = connectHttp2('https://app', { createConnection: () => socket })
  session.on('error', () => {})
  const stream = session.request(fields.flat(), { endStream: true })
  const answered = Promise.withResolvers<number>()
  stream.on('error', () => {})
  stream.once('response', ({ ':status': status = 0, 'grpc-status': code }) =>
    answered.resolve(code === undefined ? status : (httpStatuses[String(code)] ?? 0)),
  )
  // nghttp2 answers what no endpoint may send by a reset (RFC 9113 §8.1.1): refused as malformed
  stream.once('close', () => answered.resolve(400))
  const status = await answered.promise
  session.destroy()
  return status
}

async function askedOf(it: CorpusCase): Promise<Got> {
  const { raw, h2 } = it.request
  taken()
  return gotFrom(h2 === undefined ? await askHttp1(it, raw ?? '') : await askHttp2(it, h2))
}

const isBytes = ({ request }: CorpusCase) => request.raw !== undefined || request.h2 !== undefined
const profiles: readonly Profile[] = ['strict', 'istio']

it.for(profiles)(
  'the bytes of the corpus are decided as it says: %s',
  async (profile, { skip }) => {
    const problem = corpusProblem()
    if (problem !== undefined) return skip(problem)
    const wrong: string[] = []
    let asked = 0
    for (const fixture of corpusFixtures()) {
      const state = stateFor(fixture, profile)
      for (const sidecar of [http1, http2]) sidecar.mesh.put(state)
      for (const each of fixture.cases.filter(isBytes)) {
        const wanted = each.expect[profile]
        if (wanted === undefined) continue
        const why = obstacle(each)
        if (why !== undefined) {
          console.info(`not on a socket: ${fixture.name} ${each.id}: ${why}`)
          continue
        }
        asked++
        const got = await askedOf(each)
        if (isExpected(wanted, got)) continue
        wrong.push(`${fixture.name} ${each.id}: ${JSON.stringify({ got, wanted })}: ${each.why}`)
      }
    }
    console.info(`corpus on sockets, ${profile}: ${asked} requests, ${wrong.length} wrong`)
    expect(wrong).toEqual([])
    expect(asked).toBeGreaterThan(350)
  },
)
