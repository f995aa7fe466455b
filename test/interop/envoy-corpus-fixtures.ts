// Fixtures of the corpus put into force at a driven Envoy, and its cases as requests of this node's mesh.
import { readFileSync } from 'node:fs'
import { createClient } from '@connectrpc/connect'
import { parse, parseAllDocuments } from 'yaml'
import type { DevCa } from '../../certs-dev/authority.ts'
import { destinationOf, readAddress } from '../../policies/attributes/request.ts'
import { compile, type PolicySet } from '../../policies/compile.ts'
import { evaluateHttp } from '../../policies/evaluate.ts'
import { meshDocument } from '../../policies/language/mesh.ts'
import { excuse } from '../../policies/language/metadata.ts'
import { readPolicies } from '../../policies/language/read.ts'
import { lintRules } from '../../policies/lint.ts'
import { Policies } from '../../proto/gen/castellan/policy/v1/policies_pb.js'
import { systemClock } from '../../runtime/clock.ts'
import { parseSpiffeId, parseTrustDomain } from '../../spiffe/id.ts'
import type { CorpusRequest, Fixture } from '../support/corpus.ts'
import { type DrivenEnvoy, envoyId } from '../support/driven-envoy.ts'
import { trustDomain } from '../support/node.ts'
import { getRaw } from '../support/raw-http1.ts'
import type { Reached } from '../support/reached.ts'
import { bytesOf, onLoopback } from './envoy-corpus-requests.ts'
import { eventually } from './eventually.ts'

type Mesh = ReturnType<typeof meshDocument.parse>

/** A fixture in force. */
export interface Entered {
  readonly fixture: Fixture
  readonly mesh: Mesh
  readonly set: PolicySet
  /** whether Envoy decides without the agent */
  readonly isAlone: boolean
}

/** As policies of this node; what a linter says of them is the point of them. */
function asHere(text: string): string {
  const here = onLoopback(text).replace(/(?<![\w.-])td\//g, `${trustDomain}/`)
  const documents = parseAllDocuments(here).filter((it) => it.contents !== null)
  for (const it of documents) {
    it.setIn(['metadata', 'namespace'], 'shop')
    it.setIn(['metadata', 'annotations', excuse], lintRules.map(({ name }) => name).join())
  }
  return documents.join('---\n')
}

function writeSpec(it: DrivenEnvoy, { backend }: Mesh, healthPath: string): void {
  const reads = backend === 'rfc3986' ? {} : { backend }
  it.edit((spec) => ({
    ...spec,
    inbound: spec.inbound.map(({ backend: _, ...one }) => ({ ...one, ...reads, healthPath })),
  }))
}

async function isInForce(it: DrivenEnvoy, version: bigint, healthPath: string): Promise<boolean> {
  const { proxies, policyVersion } = await it.status()
  if (proxies[0]?.policyVersion !== version || policyVersion !== version) return false
  const { status } = await getRaw(
    { port: it.ports.inbound, svid: it.svid(), roots: it.roots() },
    healthPath,
  )
  // at that path the workload hears of nobody: elsewhere, where everybody may do everything, it does
  return status === 200 && it.reached.at(-1)?.headers.includes('x-spiffe-peer-id') === false
}

/** Resolves once the policies of a fixture, and the backend that it speaks of, are in force. */
export async function enter(it: DrivenEnvoy, fixture: Fixture): Promise<Entered> {
  const read = (name: string) => readFileSync(fixture.file(name), 'utf8')
  const mesh = meshDocument.parse(parse(onLoopback(read('mesh.yaml'))))
  const files = [{ name: 'corpus.yaml', text: asHere(read('policies.yaml')) }]
  const healthPath = `/corpus-${fixture.name}`
  writeSpec(it, mesh, healthPath)
  const { version } = await createClient(Policies, it.node.local).applyPolicies({ files })
  await eventually(`${fixture.name} is in force`, async () => {
    if (!(await isInForce(it, version, healthPath))) throw new Error('not yet')
  })
  const { proxies } = await it.status()
  const set = compile(readPolicies(files), {
    mesh: { ...mesh, profile: 'strict', trustDomain: parseTrustDomain(trustDomain) },
  })
  return { fixture, mesh, set, isAlone: proxies[0]?.remarks.length === 0 }
}

/** How a case is asked. */
export interface Plan {
  /** of the client */
  readonly id: string
  readonly signer: DevCa
  readonly from: string
  readonly bytes: Buffer | undefined
  readonly h2: CorpusRequest['h2']
}

/** By trust domain. */
export type Signers = ReadonlyMap<string, DevCa>

/** Why a case cannot be had on a socket; else how. */
export function planOf(
  { request }: { readonly request: CorpusRequest },
  { mesh }: Entered,
  signers: Signers,
): Plan | string {
  const { remoteIp, source: { principal, ip = '' } = {}, h2, jwt } = request
  if (jwt !== undefined) return 'claims without their token'
  if (principal === undefined) return 'no identity, and mutual TLS demands one'
  const isBehind = mesh.trustedHops > 0 && ip.startsWith('198.51.100.')
  if (remoteIp !== undefined && !isBehind) return 'Envoy derives the remote address itself'
  const remote = remoteIp === undefined ? undefined : onLoopback(remoteIp)
  const bytes = bytesOf(request, remote)
  if (bytes === undefined && h2 === undefined) return 'a connection, no request'
  const id = principal.replace(/^spiffe:\/\/td\//, `spiffe://${trustDomain}/`)
  const domain = /^spiffe:\/\/([^/]*)/.exec(id)?.[1]?.toLowerCase() ?? ''
  const signer = signers.get(domain)
  if (signer === undefined) return `nobody signs ${id}`
  return { id, signer, from: onLoopback(ip), bytes, h2 }
}

/** Whether the engine allows a request as the backend has seen it; true where that cannot be told. */
export function mayBeForwarded(entered: Entered, { id, from }: Plan, seen: Reached): boolean {
  const { mesh, set } = entered
  // tokens are taken off, and behind other proxies Envoy adds an address of its own
  if (mesh.trustedHops > 0 || set.documents.authentications.length > 0) return true
  const { method, target, headers } = seen
  const connected = {
    source: parseSpiffeId(id),
    sourceIp: readAddress(from, set.mesh),
    destination: destinationOf(parseSpiffeId(envoyId), { labels: {} }),
    sni: undefined,
  }
  const raw = { method, target, host: undefined, headers }
  const result = evaluateHttp(set, connected, { raw, now: systemClock.now() })
  return result.kind === 'decided' && result.decision.allow
}
