// What an agent drives one proxy by: what it was told of the mesh, and one spec.
import { create } from '@bufbuild/protobuf'
import { createKnowledge, type Knowledge } from '../../agent/knowledge.ts'
import { createCutBooks } from '../../agent/proxies/cuts.ts'
import { createDriven, type Driven } from '../../agent/proxies/driven.ts'
import type { Services } from '../../agent/services.ts'
import type { WorkloadSvid } from '../../agent/svid-cache.ts'
import { sdsConfig } from '../../agent/xds/config.ts'
import type { DevCa } from '../../certs-dev/authority.ts'
import { AuthorityMessageSchema } from '../../proto/gen/castellan/control/v1/control_pb.js'
import type { ProxySpec } from '../../proxy-spec/spec.ts'
import { type Clock, systemClock } from '../../runtime/clock.ts'
import { createLog } from '../../runtime/log.ts'
import type { SpiffeId } from '../../spiffe/id.ts'
import { bundleOf, entryOf, trustDomain } from '../agent/xds/sds-server.ts'
import { policyText } from './policy-text.ts'

/** Of one workload, whom everybody may call. */
export function knowledgeOf(path: string, roots: readonly DevCa[], clock = systemClock): Knowledge {
  const knowledge = createKnowledge(trustDomain, clock)
  const files = [{ name: 'test.yaml', text: policyText('[{}]') }]
  knowledge.apply(
    create(AuthorityMessageSchema, {
      snapshot: true,
      bundle: bundleOf(trustDomain, ...roots),
      entries: [entryOf(path, 1)],
      policies: { version: 1n, rootNamespace: '', files },
    }),
  )
  return knowledge
}

export interface DrivingOptions {
  readonly knowledge: Knowledge
  readonly spec: ProxySpec
  readonly identity: SpiffeId
  readonly svid: WorkloadSvid
  readonly driver?: 'envoy' | 'grpc'
  readonly decisions?: string | undefined
  readonly endpoints?: ReturnType<Services['of']>
  readonly clock?: Clock
}

/** By one spec, which never changes. */
export function driveBy(options: DrivingOptions): Driven {
  const { knowledge, spec, identity, svid, driver = 'envoy', decisions } = options
  const { endpoints = new Map(), clock = systemClock } = options
  const never = { [Symbol.dispose]: () => {} }
  const one = { file: 'web.yaml', driver, spec, identity, asksAlways: false, trouble: '' }
  return createDriven({
    ...{ knowledge, decisions, clock, log: createLog({ name: 'test', level: 'silent' }) },
    cache: { svids: new Map([[svid.entryId, svid]]), want: () => {} },
    config: { sds: sdsConfig.parse({}) },
    services: { of: () => endpoints, onChange: () => never },
    cuts: createCutBooks(),
    specs: { current: () => [one], onChange: () => never },
  })
}

/** What the proxy is to be now. */
export function snapshotBy(options: DrivingOptions) {
  const { knowledge, driver = 'envoy' } = options
  const entries = knowledge.entriesFor(new Set(['test:caller']))
  const found = driveBy(options).of(entries, driver)?.snapshot
  if (found === undefined) throw new Error('no snapshot')
  return found
}
