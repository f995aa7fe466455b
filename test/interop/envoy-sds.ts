// A real Envoy whose certificates and validation contexts come from our agent: by both variants of SDS,
// through an agent that restarts, a rotation of the CA, a denied certificate, an entry that comes late.

import { once } from 'node:events'
import { createServer, request as plainRequest } from 'node:http'
import { request as tlsRequest } from 'node:https'
import { join } from 'node:path'
import { TLSSocket } from 'node:tls'
import { createClient } from '@connectrpc/connect'
import { type OwnSvid, startX509Source, type X509Source } from '../../client/x509-source.ts'
import { Authorities } from '../../proto/gen/castellan/authority/v1/authorities_pb.js'
import { DenyRules } from '../../proto/gen/castellan/deny/v1/deny_rules_pb.js'
import { Entry } from '../../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import { LocalAuthority } from '../../proto/gen/spire/api/server/localauthority/v1/localauthority_pb.js'
import { bundleToPem } from '../../spiffe/bundle.ts'
import { type Certificate, parseCertificate } from '../../spiffe/certificate.ts'
import { explain } from '../../spiffe/errors.ts'
import { parseTrustDomain } from '../../spiffe/id.ts'
import { toPem } from '../../spiffe/pem.ts'
import { leafIdOf } from '../../spiffe/svid.ts'
import { findEnvoy, startEnvoy } from '../support/envoy.ts'
import { makeTestAuthority } from '../support/mesh.ts'
import { startNode, type TestNode, trustDomain } from '../support/node.ts'
import { freePorts } from '../support/ports.ts'
import { bootstrapOf, type Ports, type Way } from './envoy-sds-bootstrap.ts'
import { eventually, until } from './eventually.ts'
import type { Interop, Outcome, Surroundings } from './interop.ts'

const envoyId = `spiffe://${trustDomain}/envoy`
const clientId = `spiffe://${trustDomain}/client`
const domain = parseTrustDomain(trustDomain)
const domainId = `spiffe://${trustDomain}`
const plain = { disable_spiffe_cert_validation: true }

const ways: readonly Way[] = [
  {
    ...{ name: 'state of the world', api: 'GRPC', metadata: {} },
    inbound: ['default', 'ROOTCA'],
    outbound: [envoyId, 'ALL'],
  },
  {
    ...{ name: 'delta', api: 'DELTA_GRPC', metadata: {} },
    inbound: [envoyId, domainId],
    outbound: ['default', 'ROOTCA'],
  },
  {
    ...{ name: 'delta, plain CA', api: 'DELTA_GRPC', metadata: plain },
    inbound: ['default', 'ROOTCA'],
    outbound: [envoyId, domainId],
  },
]

interface Answer {
  readonly status: number
  /** what the backend was told of its client */
  readonly client: string
  readonly server?: Certificate
}

/** Whom Envoy names in x-forwarded-client-cert. */
const uriOf = (forwarded: string) => /(?:^|;)URI=([^;,]*)/.exec(forwarded)?.[1] ?? forwarded

/** One request over a connection of its own; rejects with what TLS or the socket says. */
async function ask(port: number, svid?: OwnSvid | null, roots = ''): Promise<Answer> {
  const where = { host: '127.0.0.1', port, agent: false, timeout: 20_000 }
  const identity =
    svid === null || svid === undefined
      ? {}
      : {
          cert: svid.chain.map((der) => toPem(der, 'CERTIFICATE')).join(''),
          key: svid.key.export({ format: 'pem', type: 'pkcs8' }),
        }
  // whom it is is looked at below
  const tls = { ca: roots, checkServerIdentity: () => undefined, ...identity }
  const request = svid === undefined ? plainRequest(where) : tlsRequest({ ...where, ...tls })
  const { promise, resolve, reject } = Promise.withResolvers<Answer>()
  request.on('error', reject)
  request.on('timeout', () => request.destroy(new Error('no answer')))
  request.on('response', (response) => {
    const { socket, statusCode: status = 0 } = response
    const peer = socket instanceof TLSSocket ? socket.getPeerX509Certificate()?.raw : undefined
    const server = peer === undefined ? {} : { server: parseCertificate(peer) }
    let client = ''
    response.setEncoding('utf8')
    response.on('data', (chunk: string) => {
      client += chunk
    })
    response.on('end', () => resolve({ status, client: uriOf(client), ...server }))
    response.on('error', reject)
  })
  request.end()
  return await promise
}

/** The alert by which TLS was refused, or whatever else came of it. */
async function refusalOf(call: Promise<Answer>): Promise<string> {
  try {
    const { status, client } = await call
    return `answered ${status} ${client}`
  } catch (error) {
    if (error instanceof Error && 'code' in error) return String(error.code)
    return explain(error)
  }
}

function demand(isSo: boolean, what: string): asserts isSo {
  if (!isSo) throw new Error(what)
}

interface Scene {
  readonly node: TestNode
  readonly source: X509Source
  readonly ports: Ports
  readonly envoy: string
  readonly log: (line: string) => void
}

const rootsOf = ({ source }: Scene) =>
  source
    .bundles()
    .filter((it) => it.trustDomain === domain)
    .map(bundleToPem)
    .join('')

function own({ source }: Scene): OwnSvid {
  const svid = source.svid()
  if (svid === undefined) throw new Error('the client has no SVID')
  return svid
}

/** Both directions, each over a new connection. Throws unless both are as they have to be. */
async function serves(scene: Scene): Promise<Certificate> {
  const { ports } = scene
  const { status, client, server } = await ask(ports.inbound, own(scene), rootsOf(scene))
  demand(status === 200 && client === clientId, `inbound: ${status} ${client}`)
  if (server === undefined) throw new Error('no certificate')
  demand(leafIdOf(server) === envoyId, `the server is ${leafIdOf(server)}`)
  const out = await ask(ports.outbound)
  demand(out.status === 200 && out.client === envoyId, `outbound: ${out.status} ${out.client}`)
  return server
}

async function refusesStrangers(scene: Scene): Promise<void> {
  const { log, ports } = scene
  const roots = rootsOf(scene)
  const without = await refusalOf(ask(ports.inbound, null, roots))
  demand(/CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE/.test(without), `without certificate: ${without}`)
  const other = makeTestAuthority(trustDomain).issue(clientId)
  const forged = await refusalOf(ask(ports.inbound, other, roots))
  demand(/UNKNOWN_CA|CERTIFICATE_UNKNOWN|BAD_CERTIFICATE/.test(forged), `another CA: ${forged}`)
  log(`ok refuses who shows nothing (${without}) and who is of another CA (${forged})`)
}

/** A new CA signs and the old one goes, with requests all the while. */
async function rotates(scene: Scene): Promise<void> {
  const { node, ports, log } = scene
  const authorities = createClient(Authorities, node.local)
  const local = createClient(LocalAuthority, node.local)
  const before = await serves(scene)
  const old = own(scene)
  const { authorities: all } = await authorities.getStatus({})
  const active = all.find(({ kind, phase }) => kind === 'x509' && phase === 'active')?.id ?? ''
  const { preparedAuthority } = await local.prepareX509Authority({})
  const next = preparedAuthority?.authorityId ?? ''
  let requests = 0
  const whileServing = async (what: string, step: () => Promise<unknown>) => {
    await until(what, async () => {
      requests++
      await serves(scene)
      return await step().then(
        (it) => it !== false,
        // agents have not followed yet
        () => false,
      )
    })
  }
  await whileServing('the new CA signs', () =>
    authorities.activate({ kind: 'x509', authorityId: next }),
  )
  await local.taintX509Authority({ authorityId: active })
  await whileServing('both certificates are of the new CA', async () => {
    const now = await serves(scene)
    const isNew = Buffer.compare(now.issuer, before.issuer) !== 0
    return isNew && own(scene).serial !== old.serial
  })
  await whileServing('the old CA goes', () =>
    authorities.revoke({ kind: 'x509', authorityId: active }),
  )
  let refusal = ''
  await whileServing('who is of the old CA is refused', async () => {
    refusal = await refusalOf(ask(ports.inbound, old, rootsOf(scene)))
    return /^ERR_SSL/.test(refusal)
  })
  log(
    `ok another CA, ${2 * requests} requests, none failed; then who is of the old one: ${refusal}`,
  )
}

/** A denied certificate stands in the CRL that comes with the validation context. */
async function honoursDenial(scene: Scene): Promise<void> {
  const { node, ports, log } = scene
  const rules = createClient(DenyRules, node.local)
  // a second CA: its list has to be there as well, or it would be believed no more
  await createClient(LocalAuthority, node.local).prepareX509Authority({})
  const old = own(scene)
  const target = { case: 'serial', value: old.serial } as const
  const { id } = await rules.addRule({ rule: { target, reason: 'a drill' } })
  let refusal = ''
  await until('the denied certificate is refused', async () => {
    refusal = await refusalOf(ask(ports.inbound, old, rootsOf(scene)))
    return /^ERR_SSL/.test(refusal)
  })
  await until('its successor is let in', async () => own(scene).serial !== old.serial)
  await serves(scene)
  await rules.removeRule({ id })
  log(`ok a denied certificate is refused (${refusal}), its successor is not`)
}

/** Envoy waits for a certificate whose entry is not there yet, and serves once it is. */
async function takesLate(scene: Scene): Promise<void> {
  const { node, ports, envoy, log } = scene
  const early = await refusalOf(ask(ports.late, own(scene), rootsOf(scene)))
  demand(!early.startsWith('answered'), `served without certificate: ${early}`)
  const id = await node.register('/envoy/late', [`unix:path:${envoy}`])
  const ask200 = async () => {
    const answer = ask(ports.late, own(scene), rootsOf(scene))
    const server = await answer.then(
      (it) => it.server,
      () => undefined,
    )
    return server !== undefined && leafIdOf(server) === `${envoyId}/late`
  }
  await until('the late listener serves', ask200)
  await createClient(Entry, node.local).batchDeleteEntry({ ids: [id] })
  log(`ok a listener whose entry comes late serves once it is there (before: ${early})`)
}

async function walk(way: Way, scene: Scene): Promise<void> {
  const log = (line: string) => scene.log(`${way.name}: ${line}`)
  const it = { ...scene, log }
  // Envoy says that it starts its workers before they listen
  await eventually('Envoy serves', () => serves(it))
  log('ok serves and asks by mutual TLS')
  await refusesStrangers(it)
  await takesLate(it)
  await scene.node.restartAgent()
  await rotates(it)
  await honoursDenial(it)
}

async function run(surroundings: Surroundings): Promise<Outcome> {
  const envoy = await findEnvoy(surroundings.log)
  if (envoy.kind === 'missing') return { kind: 'skipped', reason: envoy.reason }
  await using stack = new AsyncDisposableStack()
  const node = stack.use(await startNode())
  const uid = `unix:uid:${process.getuid?.()}`
  await node.register('/envoy', [uid, `unix:path:${envoy.path}`])
  await node.register('/client', [uid, `unix:path:${process.execPath}`])
  const source = stack.use(startX509Source({ kind: 'unix', path: node.agent.socket }))
  await source.ready(AbortSignal.timeout(60_000))
  const backend = createServer((request, response) => {
    response.end(String(request.headers['x-forwarded-client-cert'] ?? ''))
  }).listen(0, '127.0.0.1')
  stack.defer(() => void backend.close())
  await once(backend, 'listening')
  const bound = backend.address()
  const backendPort = typeof bound === 'object' && bound !== null ? bound.port : 0
  for (const [i, way] of ways.entries()) {
    const [inbound = 0, outbound = 0, late = 0] = await freePorts(3)
    const ports = { inbound, outbound, late, backend: backendPort }
    const admin = join(node.folder, `envoy-${i}.sock`)
    const bootstrap = bootstrapOf(way, { socket: node.agent.socket, admin, id: envoyId }, ports)
    await using _ = await startEnvoy(envoy.path, {
      name: `envoy-${i}`,
      folder: node.folder,
      bootstrap,
    })
    await walk(way, { node, source, ports, envoy: envoy.path, log: surroundings.log })
  }
  return { kind: 'ok' }
}

export const envoySds: Interop = { name: 'envoy-sds', run }
