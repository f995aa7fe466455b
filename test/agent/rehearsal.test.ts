// What an agent does with the leaf of an authority that is about to sign.
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { followControl } from '../../agent/control.ts'
import { createKnowledge } from '../../agent/knowledge.ts'
import { createProxyLedger } from '../../agent/proxies/ledger.ts'
import { createServices } from '../../agent/services.ts'
import { createLedger } from '../../agent/sidecar/ledger.ts'
import { leafTbs, wrapSigned } from '../../ca/profile.ts'
import { openTransport } from '../../client/transport.ts'
import { Control } from '../../proto/gen/castellan/control/v1/control_pb.js'
import { systemClock } from '../../runtime/clock.ts'
import { type GrpcServer, startGrpcServer } from '../../runtime/grpc/server.ts'
import { service } from '../../runtime/grpc/service.ts'
import { createLatest } from '../../runtime/lifecycle.ts'
import { bundleOf } from '../../spiffe/bundle.ts'
import { parseTrustDomain } from '../../spiffe/id.ts'
import { memoryLog } from '../support/ca.ts'
import { testFolder } from '../support/folder.ts'
import { leafFields, signedLeaf, testSigner } from '../support/leaf.ts'

const trustDomain = parseTrustDomain('example.org')
const now = Date.now()

interface Told {
  readonly cursor: bigint
  readonly roots: readonly Uint8Array[]
  readonly canaries: readonly Uint8Array[]
}

let folder: ReturnType<typeof testFolder>
let server: GrpcServer<string>
let acknowledged: bigint[]
let tell: (told: Told) => void
const stop = new AbortController()

beforeEach(async () => {
  folder = testFolder()
  acknowledged = []
  const box = createLatest<Told>(stop.signal)
  tell = box.push
  server = await startGrpcServer<string>({
    listen: { path: join(folder.path, 'ca.sock'), mode: 0o600 },
    services: [
      service<typeof Control, string>(Control, {
        async *subscribe(requests) {
          const hear = async () => {
            for await (const { message } of requests)
              if (message.case === 'acknowledged') acknowledged.push(message.value.cursor)
          }
          hear().catch(() => {})
          for await (const { cursor, roots, canaries } of box) {
            const x509Authorities = roots.map((asn1) => ({ asn1: new Uint8Array(asn1) }))
            yield {
              ...{ cursor, epoch: 'e', snapshot: true },
              bundle: { trustDomain, x509Authorities },
              canaries: canaries.map((it) => new Uint8Array(it)),
            }
          }
        },
      }),
    ],
    peer: () => 'agent',
    authorize: async () => {},
  })
})
afterEach(async () => {
  stop.abort()
  await server[Symbol.asyncDispose]()
  folder[Symbol.dispose]()
})

describe('a rehearsal', () => {
  it('that fails is never acknowledged; the agent is heard all the same, and asks for everything when it comes back', async () => {
    const signer = await testSigner(now)
    const next = await testSigner(now)
    const canary = signedLeaf(leafFields(next, now), next)
    const roots = [signer.material, next.material]
    const { log, says } = memoryLog()
    const knowledge = createKnowledge(trustDomain, systemClock)
    knowledge.begin(bundleOf(trustDomain, roots))
    using link = openTransport({ kind: 'unix', path: join(folder.path, 'ca.sock') })
    const end = new AbortController()
    const work = { transport: link.transport, knowledge, clock: systemClock, signal: end.signal }
    const points = { ledger: createLedger(), proxies: createProxyLedger() }
    const services = createServices({ configured: {}, knowledge, clock: systemClock, ...points })
    const following = followControl({ ...points, services })(work, {
      connected: () => {},
      told: async () => {},
      persist: () => true,
      log,
    })
    const ended = expect(following).rejects.toThrow()

    tell({ cursor: 1n, roots, canaries: [canary] })
    await vi.waitFor(() => expect(acknowledged).toEqual([1n]), 30_000)
    // the name of an authority that is in the bundle, the signature of another key
    const tbs = leafTbs(leafFields(next, now))
    const forged = wrapSigned(tbs, canary.subarray(-70))
    tell({ cursor: 2n, roots, canaries: [canary, forged] })
    await says('a new authority cannot be believed')
    await vi.waitFor(() => expect(acknowledged).toEqual([1n, 0n]), 30_000)
    expect(knowledge.place()).toEqual({ cursor: 0n, epoch: '' })
    tell({ cursor: 3n, roots: [signer.material], canaries: [canary] })
    await vi.waitFor(() => expect(acknowledged).toEqual([1n, 0n, 0n]), 30_000)
    tell({ cursor: 4n, roots, canaries: [canary] })
    await vi.waitFor(() => expect(acknowledged).toEqual([1n, 0n, 0n, 4n]), 30_000)
    expect(knowledge.place()).toEqual({ cursor: 4n, epoch: 'e' })
    end.abort()
    await ended
  }, 120_000)
})
