// castellan.workload.v1.Sidecar: policies and endpoints for an attested embedded proxy. Its scope is the
// SVIDs that its process may have, nothing it says of itself.
import { namespaceOf } from '../../policies/request.ts'
import { scopedTo } from '../../policies/scope.ts'
import { Sidecar, type SidecarReport } from '../../proto/gen/castellan/workload/v1/sidecar_pb.js'
import { type Service, service } from '../../runtime/grpc/service.ts'
import { createLatest } from '../../runtime/lifecycle.ts'
import type { Log } from '../../runtime/log.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import type { SpiffeId } from '../../spiffe/id.ts'
import type { Caller } from '../attest/caller.ts'
import type { AgentConfig } from '../config.ts'
import type { Knowledge } from '../knowledge.ts'
import type { Ledger, SidecarRecord } from './ledger.ts'

export interface SidecarOptions {
  readonly knowledge: Knowledge
  readonly ledger: Ledger
  readonly services: AgentConfig['services']
  readonly log: Log
}

/** The part of the mesh that concerns these identities, without version. */
function stateFor(identities: readonly SpiffeId[], { knowledge, services }: SidecarOptions) {
  const set = knowledge.policies()
  const rootNamespace = set?.rootNamespace ?? ''
  const namespaces = new Set([rootNamespace, ...identities.map(namespaceOf)])
  const files = scopedTo(set?.files ?? [], namespaces).map(({ name, text }) => ({ name, text }))
  const endpoints = Object.entries(services).map(([name, addresses]) => ({
    service: name,
    addresses: [...addresses],
  }))
  const { message } = knowledge.revocation()
  // without the reasons: who subscribes is any workload
  const rules = (message?.rules ?? []).map(({ id, target, expiresAt }) => ({
    ...{ id, target, expiresAt },
  }))
  const policies = { version: set?.version ?? 0n, files, rootNamespace }
  return { policies, endpoints, denyList: { rules } }
}

function note(
  record: SidecarRecord,
  { report }: SidecarReport,
  { ledger, log }: SidecarOptions,
): void {
  switch (report.case) {
    case 'ack':
      if (report.value.refusal === '') ledger.acknowledge(record, report.value.version)
      else
        log.error(
          { spiffeId: record.id, problem: report.value.refusal },
          'a sidecar refused its policies',
        )
      break
    case 'decisions':
      ledger.count(record, report.value)
      break
    case 'vitals':
      ledger.live(record, report.value)
      break
    case undefined:
      throw new IdentityError('ERR_BAD_REQUEST', 'report: is missing', {
        fields: [{ field: 'report', problem: 'is missing' }],
      })
  }
}

const textOf = (value: unknown) =>
  JSON.stringify(value, (_, part: unknown) => (typeof part === 'bigint' ? String(part) : part))

export function sidecarService(options: SidecarOptions): Service<Caller> {
  const { knowledge, ledger } = options

  async function identitiesOf(caller: Caller): Promise<readonly [SpiffeId, ...SpiffeId[]]> {
    const { selectors } = await caller.attest()
    const [first, ...rest] = knowledge.entriesFor(selectors).map(({ spiffeId }) => spiffeId)
    if (first === undefined) throw new IdentityError('ERR_NO_IDENTITY', 'no identity issued')
    return [first, ...rest]
  }

  return service<typeof Sidecar, Caller>(Sidecar, {
    async *subscribe(requests, context) {
      if (!knowledge.isComplete()) {
        throw new IdentityError(
          'ERR_UNAVAILABLE',
          'the agent has not heard from its authority yet',
          { retryAfter: 1000 },
        )
      }
      const [identity] = await identitiesOf(context.peer)
      const record = ledger.open(identity, context.peer.process.pid)
      using wake = createLatest<true>(context.signal)
      using _ = knowledge.onChange(() => wake.push(true))
      let failure: { error: unknown } | undefined
      // not waited for: a sidecar that has lost its identity need not have said everything
      const listening = async () => {
        for await (const report of requests) note(record, report, options)
      }
      listening().catch((error: unknown) => {
        failure = { error }
        wake.push(true)
      })
      let told = ''
      let version = 0n
      wake.push(true)
      try {
        for await (const __ of wake) {
          if (failure !== undefined) throw failure.error
          const state = stateFor(await identitiesOf(context.peer), options)
          const text = textOf(state)
          if (text === told) continue
          told = text
          version++
          yield { version, ...state }
        }
        context.signal.throwIfAborted()
      } finally {
        ledger.close(record)
      }
    },
  })
}
