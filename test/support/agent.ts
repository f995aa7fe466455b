// The two services of an agent that a sidecar uses, on a unix socket, moved by the test.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { MessageInitShape } from '@bufbuild/protobuf'
import type { OwnSvid, X509Context } from '../../client/x509-source.ts'
import {
  Sidecar,
  type SidecarReport,
  type SidecarStateSchema,
} from '../../proto/gen/castellan/workload/v1/sidecar_pb.js'
import { SpiffeWorkloadAPI } from '../../proto/gen/spiffe/workload/workloadapi_pb.js'
import { startGrpcServer } from '../../runtime/grpc/server.ts'
import { service } from '../../runtime/grpc/service.ts'
import { createTopic } from '../../runtime/lifecycle.ts'
import { bundleToDer } from '../../spiffe/bundle.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import { trustDomainOf } from '../../spiffe/id.ts'

export type State = MessageInitShape<typeof SidecarStateSchema>

export interface TestAgent extends AsyncDisposable {
  /** `unix:///…` */
  readonly endpoint: string
  putContext(context: X509Context | undefined): void
  putState(state: State): void
  /** Resolves with the first report, of those before and those to come, for which `is` holds. */
  report(is: (report: SidecarReport) => boolean): Promise<SidecarReport>
  readonly reports: readonly SidecarReport[]
}

/** A value that streams follow: the newest at once, then each change. */
function createFollowed<T>() {
  const topic = createTopic<void>()
  let value: T | undefined
  return {
    put(next: T | undefined) {
      value = next
      topic.publish()
    },
    async *follow(signal: AbortSignal): AsyncGenerator<T | undefined> {
      let changed = Promise.withResolvers<void>()
      using _ = topic.subscribe(() => changed.resolve())
      signal.addEventListener('abort', () => changed.resolve(), { once: true })
      while (!signal.aborted) {
        yield value
        await changed.promise
        changed = Promise.withResolvers<void>()
        if (signal.aborted) return
      }
    },
  }
}

function messageOf({ id, chain, key }: OwnSvid, { bundles }: X509Context) {
  const bundle = bundles(trustDomainOf(id))
  return {
    spiffeId: id,
    x509Svid: Buffer.concat(chain),
    x509SvidKey: key.export({ format: 'der', type: 'pkcs8' }),
    bundle: bundle === undefined ? new Uint8Array() : bundleToDer(bundle),
  }
}

export async function startTestAgent(at?: string): Promise<TestAgent> {
  const folder = at ?? (await mkdtemp(join(tmpdir(), 'castellan-proxy-')))
  const path = join(folder, 'agent.sock')
  const contexts = createFollowed<X509Context>()
  const states = createFollowed<State>()
  const reports: SidecarReport[] = []
  const reported = createTopic<void>()
  const workloadApi = service(SpiffeWorkloadAPI, {
    async *fetchX509SVID(_, { signal }) {
      for await (const context of contexts.follow(signal)) {
        if (context === undefined) throw new IdentityError('ERR_NO_IDENTITY', 'no identity issued')
        yield { svids: context.svids.map((svid) => messageOf(svid, context)) }
      }
    },
  })
  const sidecar = service(Sidecar, {
    async *subscribe(requests, { signal }) {
      const reading = (async () => {
        for await (const report of requests) {
          reports.push(report)
          reported.publish()
        }
      })()
      reading.catch(() => {})
      for await (const state of states.follow(signal)) if (state !== undefined) yield state
    },
  })
  const server = await startGrpcServer({
    listen: { path, mode: 0o600 },
    services: [workloadApi, sidecar],
    peer: () => undefined,
    drainTimeout: 100,
  })
  return {
    endpoint: `unix://${path}`,
    putContext: contexts.put,
    putState: states.put,
    reports,
    async report(is) {
      for (;;) {
        const found = reports.find(is)
        if (found !== undefined) return found
        await new Promise<void>((resolve) => {
          const subscription = reported.subscribe(() => {
            subscription[Symbol.dispose]()
            resolve()
          })
        })
      }
    },
    async [Symbol.asyncDispose]() {
      await server[Symbol.asyncDispose]()
      if (at === undefined) await rm(folder, { recursive: true })
    },
  }
}
