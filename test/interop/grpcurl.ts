// grpcurl, as people use it: what the sockets serve is found, described and called by reflection alone.
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createClient } from '@connectrpc/connect'
import { Bundle } from '../../proto/gen/spire/api/server/bundle/v1/bundle_pb.js'
import { Entry } from '../../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import { SVID } from '../../proto/gen/spire/api/server/svid/v1/svid_pb.js'
import { toPem } from '../../spiffe/pem.ts'
import { newKeys } from '../support/ca-client.ts'
import { makeCsr, requestedNames } from '../support/csr.ts'
import { startNode, type TestNode, trustDomain } from '../support/node.ts'
import { buildGo } from './go.ts'
import type { Interop, Outcome, Surroundings } from './interop.ts'

const patience = 120_000
const header = ['-H', 'workload.spiffe.io: true'] as const
const protos = ['-import-path', join(import.meta.dirname, '../../proto')] as const
const health = 'grpc.health.v1.Health/Check'
const entries = 'spire.api.server.entry.v1.Entry'

/** grpcurl exits with 64 and the status' number; with 1 for what it does not even send. */
const codes = { ok: 0, unsent: 1, invalidArgument: 67, notFound: 69, denied: 71, unimplemented: 76 }

interface Check {
  readonly says: string
  readonly args: readonly string[]
  readonly code?: keyof typeof codes
  /** each is in what it prints */
  readonly prints: readonly (string | RegExp)[]
}

interface Said {
  readonly code: number
  readonly text: string
}

async function curl(program: string, args: readonly string[]): Promise<Said> {
  const { promise, resolve } = Promise.withResolvers<Said>()
  execFile(program, args, { timeout: patience }, (error, stdout, stderr) => {
    const code = typeof error?.code === 'number' ? error.code : -1
    resolve({ code: error === null ? 0 : code, text: `${stdout}${stderr}` })
  })
  return await promise
}

const inOneLine = (text: string) => text.trim().replaceAll(/\s+/g, ' ')
const holds = (text: string, wanted: string | RegExp) =>
  typeof wanted === 'string' ? text.includes(wanted) : wanted.test(text)

/** What is not as it should be. */
async function failureOf(program: string, { args, code = 'ok', prints }: Check) {
  const said = await curl(program, args)
  const text = inOneLine(said.text)
  if (said.code !== codes[code]) return `exited with ${said.code}: ${text}`
  const missing = prints.find((wanted) => !holds(text, wanted))
  return missing === undefined ? undefined : `without ${missing}: ${text}`
}

/** The first message of a stream that has no end. */
async function firstMessage(program: string, args: readonly string[]): Promise<string> {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'], timeout: patience })
  let text = ''
  child.stdout.setEncoding('utf8')
  for await (const part of child.stdout) {
    text += String(part)
    // it indents all but the last line of a message
    if (/^\}$/m.test(text)) break
  }
  const ended = once(child, 'exit')
  if (child.exitCode === null && child.kill()) await ended
  return text
}

/** A .proto text by which that service has one method more. */
const unknownMethod = (folder: string, service: string) => {
  const dot = service.lastIndexOf('.')
  const inPackage = dot < 0 ? '' : `package ${service.slice(0, dot)};\n`
  const name = service.slice(dot + 1)
  const text = `syntax = "proto3";
${inPackage}service ${name} { rpc FetchNothing(Nothing) returns (Nothing); }
message Nothing {}
`
  writeFileSync(join(folder, `${name}.proto`), text)
  return ['-import-path', folder, '-proto', `${name}.proto`]
}

function checksOfAgent({ folder, agent }: TestNode): readonly Check[] {
  const api = 'SpiffeWorkloadAPI'
  const at = ['-plaintext', '-unix', agent.socket]
  const fetch = [...header, ...at, `${api}/FetchJWTSVID`]
  return [
    {
      says: 'lists the services, health and reflection among them',
      args: [...at, 'list'],
      prints: [api, 'SecretDiscoveryService', 'grpc.health.v1.Health', 'grpc.reflection.v1.'],
    },
    {
      says: 'describes the Workload API',
      args: [...at, 'describe', api],
      prints: ['rpc FetchX509SVID ( .X509SVIDRequest ) returns ( stream .X509SVIDResponse );'],
    },
    {
      says: 'describes a field of a message',
      args: [...at, 'describe', 'X509SVID.x509_svid_key'],
      prints: ['bytes x509_svid_key = 3'],
    },
    {
      says: 'calls with the security header',
      args: ['-d', '{"audience": ["them"]}', ...fetch],
      prints: [`"spiffeId": "spiffe://${trustDomain}/web"`, /"svid": "[\w-]+\.[\w-]+\.[\w-]+"/],
    },
    {
      says: 'is refused without the header',
      args: [...at, `${api}/FetchX509Bundles`],
      code: 'invalidArgument',
      prints: ['Code: InvalidArgument', 'security header missing from request'],
    },
    {
      says: 'asks for the health without the header',
      args: [...at, health],
      prints: ['"status": "SERVING"'],
    },
    {
      says: 'an unknown method is Unimplemented',
      args: [...header, ...unknownMethod(folder, api), ...at, `${api}/FetchNothing`],
      code: 'unimplemented',
      prints: ['Code: Unimplemented'],
    },
    {
      says: 'malformed JSON is not sent',
      args: ['-d', '{"audience": [', ...fetch],
      code: 'unsent',
      prints: ['error getting request data: unexpected EOF'],
    },
    {
      says: 'an unknown field is not sent',
      args: ['-d', '{"for": "them"}', ...fetch],
      code: 'unsent',
      prints: ['message type JWTSVIDRequest has no known field named for'],
    },
  ]
}

function checksOfAuthority({ folder, authority }: TestNode): readonly Check[] {
  const at = ['-plaintext', '-unix', authority.socket]
  const spiffeId = { trustDomain, path: '/by-hand' }
  const entry = { id: 'by-hand', spiffeId, parentId: { trustDomain, path: '/node' } }
  const selectors = [{ type: 'unix', value: 'uid:1' }]
  return [
    {
      says: 'ca.sock: lists the services',
      args: [...at, 'list'],
      prints: [entries, 'castellan.authority.v1.Authorities', 'grpc.health.v1.Health'],
    },
    {
      says: 'ca.sock: describes a service',
      args: [...at, 'describe', entries],
      prints: ['rpc ListEntries ( .spire.api.server.entry.v1.ListEntriesRequest )'],
    },
    {
      says: 'ca.sock: describes a message',
      args: [...at, 'describe', 'spire.api.types.Entry'],
      prints: ['.spire.api.types.SPIFFEID spiffe_id = 2;', 'message AdditionalAttributes {'],
    },
    {
      says: 'ca.sock: asks for the health',
      args: [...at, health],
      prints: ['"status": "SERVING"'],
    },
    {
      says: 'ca.sock: an unknown method is Unimplemented',
      args: [...unknownMethod(folder, entries), ...at, `${entries}/FetchNothing`],
      code: 'unimplemented',
      prints: ['Code: Unimplemented'],
    },
    {
      says: 'ca.sock: makes an entry',
      args: [
        ...['-d', JSON.stringify({ entries: [{ ...entry, selectors }] })],
        ...[...at, `${entries}/BatchCreateEntry`],
      ],
      prints: ['"status": { "message": "OK" }', '"id": "by-hand"'],
    },
    {
      says: 'ca.sock: lists it',
      args: [...at, `${entries}/ListEntries`],
      prints: ['"id": "by-hand"', '"path": "/web"', '"value": "uid:1"'],
    },
    {
      says: 'ca.sock: is told what there is not',
      args: ['-d', '{"id": "nothing"}', ...at, `${entries}/GetEntry`],
      code: 'notFound',
      prints: ['Code: NotFound'],
    },
  ]
}

/** An administrator's certificate and key as files; `node` knows that it is one. */
async function administrator({ folder, local }: TestNode): Promise<readonly string[]> {
  const keys = newKeys()
  const attributes = [requestedNames([0x86, `spiffe://${trustDomain}/boss`])]
  const { svid } = await createClient(SVID, local).mintX509SVID({
    csr: makeCsr(keys, { attributes }),
  })
  const at = (name: string) => join(folder, name)
  const chain = svid?.certChain.map((it) => toPem(it, 'CERTIFICATE')) ?? []
  writeFileSync(at('boss.pem'), chain.join(''))
  writeFileSync(at('boss.key'), keys.privateKey.export({ format: 'pem', type: 'pkcs8' }))
  const parentId = { trustDomain, path: '/node' }
  const spiffeId = { trustDomain, path: '/boss' }
  const selectors = [{ type: 'unix', value: 'uid:1' }]
  const { results } = await createClient(Entry, local).batchCreateEntry({
    entries: [{ spiffeId, parentId, selectors, admin: true }],
  })
  const [result] = results
  if (result?.status?.code !== 0) throw new Error(`entry refused: ${result?.status?.message}`)
  return ['-cert', at('boss.pem'), '-key', at('boss.key')]
}

function checksOfTls({ authority }: TestNode, own: readonly string[]): readonly Check[] {
  // it compares DNS names only, and an authority has a SPIFFE ID
  const at = ['-insecure', `127.0.0.1:${authority.port}`]
  const bundle = 'spire.api.server.bundle.v1.Bundle/GetBundle'
  return [
    {
      says: 'TLS: nobody in particular may not ask what there is',
      args: [...at, 'list'],
      code: 'unsent',
      prints: ['PermissionDenied', 'anonymous may not call'],
    },
    {
      says: 'TLS: but for the health, as our .proto texts say',
      args: [...protos, '-proto', 'grpc/health/v1/health.proto', ...at, health],
      prints: ['"status": "SERVING"'],
    },
    {
      says: 'TLS: and for the bundle',
      args: [...protos, '-proto', 'spire/api/server/bundle/v1/bundle.proto', ...at, bundle],
      prints: [`"trustDomain": "${trustDomain}"`, '"x509Authorities"'],
    },
    {
      says: 'TLS: an administrator lists entries by reflection',
      args: [...own, ...at, `${entries}/ListEntries`],
      prints: ['"path": "/boss"', '"admin": true'],
    },
    {
      says: 'TLS: and is refused what is of agents',
      args: [...own, ...at, `${entries}/GetAuthorizedEntries`],
      code: 'denied',
      prints: ['Code: PermissionDenied'],
    },
  ]
}

/** The bundle that the agent pushes is the one that the authority has. */
async function readsStream(program: string, { agent, local }: TestNode): Promise<void> {
  const at = ['-plaintext', '-unix', agent.socket]
  const args = [...header, ...at, 'SpiffeWorkloadAPI/FetchX509Bundles']
  const text = await firstMessage(program, args)
  const { x509Authorities } = await createClient(Bundle, local).getBundle({})
  const der = Buffer.concat(x509Authorities.map(({ asn1 }) => asn1)).toString('base64')
  const wanted = `{ "bundles": { "spiffe://${trustDomain}": "${der}" } }`
  if (inOneLine(text) !== wanted) throw new Error(`the bundles are ${inOneLine(text)}`)
}

async function run(surroundings: Surroundings): Promise<Outcome> {
  const tool = 'github.com/fullstorydev/grpcurl/cmd/grpcurl'
  const built = await buildGo('grpcurl', surroundings, { tool })
  if (built.kind === 'skipped') return built
  await using node = await startNode()
  await node.register('/web', [`unix:path:${built.path}`])
  const own = await administrator(node)
  const failures: string[] = []
  for (const check of [
    ...checksOfAgent(node),
    ...checksOfAuthority(node),
    ...checksOfTls(node, own),
  ]) {
    const failure = await failureOf(built.path, check)
    surroundings.log(
      failure === undefined ? `ok ${check.says}` : `not ok ${check.says}: ${failure}`,
    )
    if (failure !== undefined) failures.push(`${check.says}: ${failure}`)
  }
  await readsStream(built.path, node)
  surroundings.log('ok reads the first message of a stream')
  if (failures.length > 0) throw new Error(failures.join('; '))
  return { kind: 'ok' }
}

export const grpcurl: Interop = { name: 'grpcurl', run }
