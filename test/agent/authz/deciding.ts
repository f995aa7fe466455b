// The decision socket, real, in front of knowledge that the test moves, and callers that are what the test says.
import { mkdtempSync, rmSync } from 'node:fs'
import { request as httpRequest, type OutgoingHttpHeaders } from 'node:http'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { create, type MessageInitShape } from '@bufbuild/protobuf'
import { createClient } from '@connectrpc/connect'
import type { Caller } from '../../../agent/attest/caller.ts'
import { type DecisionsConfig, decisionsConfig } from '../../../agent/authz/config.ts'
import { type DecisionServer, startDecisions } from '../../../agent/authz/start.ts'
import { createKnowledge } from '../../../agent/knowledge.ts'
import { createLedger, type Ledger } from '../../../agent/sidecar/ledger.ts'
import type { WorkloadSvid } from '../../../agent/svid-cache.ts'
import { openTransport } from '../../../client/transport.ts'
import type { OwnSvid } from '../../../client/x509-source.ts'
import { AuthorityMessageSchema } from '../../../proto/gen/castellan/control/v1/control_pb.js'
import {
  Authorization,
  type CheckRequestSchema,
  type CheckResponse,
} from '../../../proto/gen/envoy/service/auth/v3/external_auth_pb.js'
import { type Clock, systemClock } from '../../../runtime/clock.ts'
import { createTopic } from '../../../runtime/lifecycle.ts'
import { createLog } from '../../../runtime/log.ts'
import type { X509Bundle } from '../../../spiffe/bundle.ts'
import { parseTrustDomain } from '../../../spiffe/id.ts'
import { toPem } from '../../../spiffe/pem.ts'

export const trustDomain = parseTrustDomain('example.org')
export const payments = `spiffe://${trustDomain}/ns/shop/sa/payments`
export const web = `spiffe://${trustDomain}/ns/shop/sa/web`

type Message = MessageInitShape<typeof AuthorityMessageSchema>
export type Check = MessageInitShape<typeof CheckRequestSchema>

let made = 0

/** An entry of who has the selector `test:NAME`; the one that was made first is the default. */
export const entryOf = (
  id: string,
  { name = 'envoy', federatesWith = [] as string[], labels = {} } = {},
) => {
  const { host: trustDomain, pathname: path } = new URL(id)
  return {
    entry: {
      id: `${name}${path}`,
      spiffeId: { trustDomain, path },
      selectors: [{ type: 'test', value: name }],
      federatesWith,
      createdAt: BigInt(++made),
    },
    labels: { entryId: `${name}${path}`, labels },
  }
}

export const bundleMessage = ({ trustDomain: name, authorities }: X509Bundle) => ({
  trustDomain: name,
  x509Authorities: authorities.map(({ der }) => ({ asn1: new Uint8Array(der) })),
})

/** The leaf alone, as Envoy and nginx say it. */
export const escaped = ({ chain: [leaf = Buffer.alloc(0)] }: Pick<OwnSvid, 'chain'>): string =>
  encodeURIComponent(toPem(leaf, 'CERTIFICATE'))

export interface Deciding extends AsyncDisposable {
  readonly server: DecisionServer
  readonly path: string
  readonly ledger: Ledger
  /** log lines so far */
  readonly lines: readonly Readonly<Record<string, unknown>>[]
  /** how often somebody was attested */
  readonly attested: () => number
  /** Changes what the authority has told. */
  apply(message: Message): void
  putPolicies(version: bigint, text: string, rootNamespace?: string): void
  /** SVIDs of this node, of which intermediates are known. */
  putSvid(svid: OwnSvid): void
  /** Attestations take until the returned function is called. */
  holdAttestation(): () => void
  /** The process is another one from now on. */
  become(name: string): void
  check(request: Check): Promise<CheckResponse>
  ask(url: string, headers: OutgoingHttpHeaders): Promise<Plain>
}

export interface Plain {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly text: string
}

/** One request over the socket, on a connection of its own. */
export function askPlainly(
  path: string,
  url: string,
  headers: OutgoingHttpHeaders,
): Promise<Plain> {
  const { promise, resolve, reject } = Promise.withResolvers<Plain>()
  const request = httpRequest(
    { socketPath: path, path: url, headers, agent: false },
    (response) => {
      const parts: Buffer[] = []
      response.on('data', (part: Buffer) => parts.push(part))
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          text: Buffer.concat(parts).toString(),
        }),
      )
    },
  )
  request.on('error', reject)
  request.end()
  return promise
}

function createTestCallers(first: string) {
  const changed = createTopic<void>()
  let [name, count] = [first, 0]
  let held = Promise.resolve()
  const nothing = { [Symbol.dispose]: () => {} }
  const caller = (): Caller => ({
    process: { pid: process.pid, uid: 0, gid: 0, isAlive: () => true, ...nothing },
    async attest() {
      count++
      await held
      return { selectors: new Set([`test:${name}`]), missing: [], failed: new Set<string>() }
    },
    onChange: (listener) => changed.subscribe(listener),
    ...nothing,
  })
  return {
    caller,
    attested: () => count,
    hold() {
      const { promise, resolve } = Promise.withResolvers<void>()
      held = promise
      return resolve
    },
    become(next: string) {
      name = next
      changed.publish()
    },
  }
}

export interface DecidingOptions {
  readonly config?: Readonly<Record<string, unknown>>
  readonly clock?: Clock
  /** a socket that another one has or had */
  readonly path?: string
  readonly trustDomain?: string
  readonly crowd?: (caller: () => Caller) => (socket: Socket) => Caller
}

export async function startDeciding(options: DecidingOptions = {}): Promise<Deciding> {
  const { clock = systemClock, crowd = (caller) => caller } = options
  await using starting = new AsyncDisposableStack()
  const folder = mkdtempSync(join(tmpdir(), 'castellan-authz-'))
  starting.defer(() => rmSync(folder, { recursive: true }))
  const path = options.path ?? join(folder, 'authz.sock')
  const lines: Record<string, unknown>[] = []
  const destination = { write: (text: string) => void lines.push(JSON.parse(text)) }
  const log = createLog({ name: 'test', destination })
  const knowledge = createKnowledge(parseTrustDomain(options.trustDomain ?? trustDomain), clock)
  const ledger = createLedger({ decides: true })
  const svids = new Map<string, WorkloadSvid>()
  const changed = createTopic<ReadonlySet<string>>()
  const callers = createTestCallers('envoy')
  const schema = decisionsConfig((await import('zod')).z.string())
  const config: DecisionsConfig = schema.parse({ socket: path, ...options.config })
  const cache = { svids, onChange: changed.subscribe }
  const server = starting.use(
    await startDecisions({
      ...{ config, knowledge, ledger, clock, log },
      cache,
      crowd: crowd(callers.caller),
    }),
  )
  const local = starting.use(openTransport({ kind: 'unix', path }))
  const client = createClient(Authorization, local.transport)
  const started = starting.move()
  return {
    ...{ server, path, ledger, lines },
    attested: callers.attested,
    become: callers.become,
    holdAttestation: callers.hold,
    apply: (message) => knowledge.apply(create(AuthorityMessageSchema, message)),
    putPolicies: (version, text, rootNamespace = '') =>
      knowledge.apply(
        create(AuthorityMessageSchema, {
          policies: { version, rootNamespace, files: [{ name: 'test.yaml', text }] },
        }),
      ),
    putSvid({ id, serial, chain, notAfter }) {
      const now = clock.now()
      svids.set(id, {
        ...{ id, serial, notAfter, entryId: id, revision: 0n, rotations: 0, hint: '' },
        ...{ receivedAt: now, renewAt: notAfter, certificates: chain, chain: Buffer.concat(chain) },
        ...{ key: new Uint8Array(), issuer: new Uint8Array() },
        presented: { id, serial, authorityIds: [] },
      })
      changed.publish(new Set([id]))
    },
    check: (request) => client.check(request),
    ask: (url, headers) => askPlainly(path, url, headers),
    [Symbol.asyncDispose]: () => started.disposeAsync(),
  }
}
