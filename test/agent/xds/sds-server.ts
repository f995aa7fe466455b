// The service on a real socket, in front of knowledge and SVIDs that the test moves.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { create, type MessageInitShape } from '@bufbuild/protobuf'
import type { Transport } from '@connectrpc/connect'
import { createAudience } from '../../../agent/audience.ts'
import { createKnowledge } from '../../../agent/knowledge.ts'
import type { WorkloadSvid } from '../../../agent/svid-cache.ts'
import { sdsConfig } from '../../../agent/xds/config.ts'
import { secretService } from '../../../agent/xds/service.ts'
import { type DevCa, issueDev, makeDevCa } from '../../../certs-dev/authority.ts'
import { openTransport } from '../../../client/transport.ts'
import { AuthorityMessageSchema } from '../../../proto/gen/castellan/control/v1/control_pb.js'
import { type Clock, systemClock } from '../../../runtime/clock.ts'
import { startGrpcServer } from '../../../runtime/grpc/server.ts'
import { createTopic } from '../../../runtime/lifecycle.ts'
import { createLog } from '../../../runtime/log.ts'
import { parseCertificate } from '../../../spiffe/certificate.ts'
import { parseSpiffeId, parseTrustDomain } from '../../../spiffe/id.ts'

const hour = 3_600_000
export const trustDomain = parseTrustDomain('example.org')

export function makeRoot(name: string): DevCa {
  const now = Date.now()
  return makeDevCa({ name, notBefore: now - hour, notAfter: now + 24 * hour })
}

/** `key` is that of another certificate when `isWrong`. */
export function svidOf(root: DevCa, path: string, isWrong = false): WorkloadSvid {
  const id = parseSpiffeId(`spiffe://${trustDomain}${path}`)
  const now = Date.now()
  const choices = { id, notBefore: now - 60_000, notAfter: now + hour }
  const { chain, privateKey } = issueDev(root, choices)
  const [leaf] = chain
  if (leaf === undefined) throw new Error('no leaf')
  const { serial, notAfter, issuer } = parseCertificate(leaf)
  const shown = isWrong ? issueDev(root, choices).privateKey : privateKey
  return {
    ...{ id, serial, notAfter, issuer, hint: '', rotations: 0, revision: 0n, receivedAt: now },
    entryId: path,
    chain: Buffer.concat(chain),
    key: shown.export({ format: 'der', type: 'pkcs8' }),
    renewAt: now + hour / 2,
    presented: { id, serial, authorityIds: [] },
    certificates: chain,
  }
}

/** An entry of the only caller there is. Older ones come first; its id is its path. */
export const entryOf = (path: string, createdAt: number, federatesWith: string[] = []) => ({
  id: path,
  spiffeId: { trustDomain, path },
  selectors: [{ type: 'test', value: 'caller' }],
  createdAt: BigInt(createdAt),
  federatesWith,
})

export const bundleOf = (name: string, ...roots: readonly DevCa[]) => ({
  trustDomain: name,
  x509Authorities: roots.map(({ certificate }) => ({ asn1: certificate })),
})

export interface SdsServer extends AsyncDisposable {
  readonly transport: Transport
  readonly path: string
  /** log lines so far */
  readonly lines: readonly Readonly<Record<string, unknown>>[]
  /** ids of entries whose SVID was asked for before it was there */
  readonly wanted: ReadonlySet<string>
  /** Changes what the authority has told. */
  apply(message: MessageInitShape<typeof AuthorityMessageSchema>): void
  put(...svids: readonly WorkloadSvid[]): void
  drop(path: string): void
}

export async function startSds(
  sds: Readonly<Record<string, unknown>> = {},
  clock: Clock = systemClock,
): Promise<SdsServer> {
  await using starting = new AsyncDisposableStack()
  const folder = mkdtempSync(join(tmpdir(), 'castellan-sds-'))
  starting.defer(() => rmSync(folder, { recursive: true }))
  const lines: Record<string, unknown>[] = []
  const destination = { write: (text: string) => void lines.push(JSON.parse(text)) }
  const log = createLog({ name: 'test', destination })
  const knowledge = createKnowledge(trustDomain, clock)
  const svids = new Map<string, WorkloadSvid>()
  const changed = createTopic<ReadonlySet<string>>()
  const wanted = new Set<string>()
  const cache = {
    svids,
    want: ({ id }: { readonly id: string }) => void wanted.add(id),
    onChange: changed.subscribe,
  }
  const audience = createAudience(clock)
  const config = { sds: sdsConfig.parse(sds) }
  const never = { [Symbol.dispose]: () => {} }
  const path = join(folder, 'agent.sock')
  const server = starting.use(
    await startGrpcServer({
      listen: { path, mode: 0o600 },
      services: [secretService({ knowledge, cache, config, audience, clock, log })],
      peer: () => ({
        process: { pid: process.pid, uid: 0, gid: 0, isAlive: () => true, ...never },
        attest: async () => ({
          selectors: new Set(['test:caller']),
          missing: [],
          failed: new Set<string>(),
        }),
        onChange: () => never,
        ...never,
      }),
    }),
  )
  const local = starting.use(openTransport({ kind: 'unix', path: server.address }))
  const started = starting.move()
  return {
    ...{ path, lines, wanted },
    transport: local.transport,
    apply: (message) => knowledge.apply(create(AuthorityMessageSchema, message)),
    put(...list) {
      for (const svid of list) svids.set(svid.entryId, svid)
      changed.publish(new Set(list.map(({ entryId }) => entryId)))
    },
    drop(entry) {
      svids.delete(entry)
      changed.publish(new Set([entry]))
    },
    [Symbol.asyncDispose]: () => started.disposeAsync(),
  }
}
