// SpiffeWorkloadAPI, X.509 profile: who asks is attested, what it gets follows from its entries.
import { hash } from 'node:crypto'
import { create, toBinary } from '@bufbuild/protobuf'
import {
  SpiffeWorkloadAPI,
  type X509BundlesResponse,
  X509BundlesResponseSchema,
  type X509SVIDResponse,
  X509SVIDResponseSchema,
} from '../../proto/gen/spiffe/workload/workloadapi_pb.js'
import {
  type CallContext,
  type Prepared,
  prepared,
  type Service,
  service,
} from '../../runtime/grpc/service.ts'
import { createLatest } from '../../runtime/lifecycle.ts'
import { bundleToDer } from '../../spiffe/bundle.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import type { Caller } from '../attest/caller.ts'
import { type AgentEntry, entriesFor, type Knowledge } from '../knowledge.ts'
import type { SvidCache, WorkloadSvid } from '../svid-cache.ts'

export interface WorkloadApiOptions {
  readonly knowledge: Knowledge
  readonly cache: SvidCache
}

/** What a stream is told: unchanged state is recognised by its version and not sent again. */
interface Answer {
  readonly version: string
  readonly encode: () => Uint8Array
}

/** Missing, doubled, or anything but `true` is refused (Workload Endpoint §6). */
export function demandSecurityHeader({ method, metadata }: CallContext<Caller>): void {
  if (method.parent.typeName !== 'SpiffeWorkloadAPI') return
  const values = metadata.get('workload.spiffe.io') ?? []
  if (values.length !== 1 || values[0] !== 'true') {
    throw new IdentityError(
      'ERR_BAD_REQUEST',
      'security header missing from request: workload.spiffe.io has to be true',
    )
  }
}

async function entitled(context: CallContext<Caller>, knowledge: Knowledge): Promise<AgentEntry[]> {
  if (!knowledge.isComplete()) {
    throw new IdentityError('ERR_UNAVAILABLE', 'the agent has not heard from its authority yet', {
      retryAfter: 1000,
    })
  }
  const { selectors } = await context.peer.attest()
  const entries = entriesFor(knowledge, selectors)
  if (entries.length === 0) throw new IdentityError('ERR_NO_IDENTITY', 'no identity issued')
  return entries
}

function digestOf(parts: readonly Uint8Array[]): string {
  return parts.length === 0 ? '' : hash('sha256', Buffer.concat(parts), 'base64')
}

function svidMessage(svid: WorkloadSvid, bundle: Uint8Array): X509SVIDResponse['svids'][number] {
  return {
    $typeName: 'X509SVID',
    spiffeId: svid.id,
    x509Svid: svid.chain,
    x509SvidKey: svid.key,
    bundle,
    hint: svid.hint,
  }
}

export function workloadApiService({ knowledge, cache }: WorkloadApiOptions): Service<Caller> {
  // one encoded answer for all streams that are told the same
  const encoded = new Map<string, Prepared>()

  function encodedOnce({ version, encode }: Answer): Prepared {
    const known = encoded.get(version)
    if (known !== undefined) return known
    if (encoded.size >= 1024) encoded.clear()
    const made = prepared(encode())
    encoded.set(version, made)
    return made
  }

  /** of what goes along with every answer: the bundle and its CRLs */
  const bundleVersion = () => {
    const serials = knowledge.bundle().authorities.map(({ serial }) => serial)
    return `${serials.join()} ${digestOf(knowledge.revocation().crls)}`
  }

  function svidAnswer(entries: readonly AgentEntry[]): Answer | undefined {
    const svids = entries.flatMap(({ id }) => cache.svids.get(id) ?? [])
    if (svids.length === 0) return undefined
    const version = `svid ${svids.map(({ entryId, serial }) => `${entryId}=${serial}`).join()} ${bundleVersion()}`
    const encode = () => {
      const bundle = bundleToDer(knowledge.bundle())
      const message: X509SVIDResponse = create(X509SVIDResponseSchema, {
        svids: svids.map((svid) => svidMessage(svid, bundle)),
        crl: [...knowledge.revocation().crls],
      })
      return toBinary(X509SVIDResponseSchema, message)
    }
    return { version, encode }
  }

  function bundleAnswer(): Answer {
    const encode = () => {
      const bundle = knowledge.bundle()
      const message: X509BundlesResponse = create(X509BundlesResponseSchema, {
        bundles: { [`spiffe://${bundle.trustDomain}`]: bundleToDer(bundle) },
        crl: [...knowledge.revocation().crls],
      })
      return toBinary(X509BundlesResponseSchema, message)
    }
    return { version: `bundle ${bundleVersion()}`, encode }
  }

  /** Complete state at once and after each change; ends with the reason when the identity is gone. */
  async function* follow(
    context: CallContext<Caller>,
    answer: (entries: readonly AgentEntry[]) => Answer | undefined,
  ): AsyncGenerator<Prepared> {
    using wake = createLatest<true>(context.signal)
    using _ = knowledge.onChange(() => wake.push(true))
    using __ = cache.onChange(() => wake.push(true))
    let told = ''
    wake.push(true)
    for await (const ___ of wake) {
      // undefined while an SVID of a new entry is still being made: its arrival wakes us again
      const next = answer(await entitled(context, knowledge))
      if (next === undefined && told !== '') {
        throw new IdentityError(
          'ERR_UNAVAILABLE',
          'the SVID expired while the authority was away',
          { retryAfter: 1000 },
        )
      }
      if (next === undefined || next.version === told) continue
      told = next.version
      yield encodedOnce(next)
    }
    context.signal.throwIfAborted()
  }

  return service<typeof SpiffeWorkloadAPI, Caller>(SpiffeWorkloadAPI, {
    fetchX509SVID: (_, context) => follow(context, svidAnswer),
    fetchX509Bundles: (_, context) => follow(context, bundleAnswer),
  })
}
