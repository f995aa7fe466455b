// castellan.workload.v1.Sidecar: policies and endpoints for an attested embedded proxy. Its scope is the
// SVIDs that its process may have, nothing it says of itself.
import {
  type Ack,
  type DecisionCounts,
  Sidecar,
  type SidecarReport,
  type SidecarServices,
} from '../../proto/gen/castellan/workload/v1/sidecar_pb.js'
import { type Service, service } from '../../runtime/grpc/service.ts'
import { createLatest } from '../../runtime/lifecycle.ts'
import type { Log } from '../../runtime/log.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import type { Caller } from '../attest/caller.ts'
import type { Audience } from '../audience.ts'
import type { AgentEntry } from '../entries.ts'
import type { Knowledge } from '../knowledge.ts'
import type { Services } from '../services.ts'
import type { Session } from '../session.ts'
import type { Ledger, SidecarRecord } from './ledger.ts'
import { stateFor, stateText } from './state.ts'

/** a sidecar that never says what it has put to use stays where it was */
const mostUnacknowledged = 10_000

export interface SidecarOptions {
  readonly knowledge: Knowledge
  readonly ledger: Ledger
  readonly audience: Pick<Audience, 'follow'>
  readonly services: Pick<Services, 'of' | 'onChange'>
  readonly session: Pick<Session, 'untilHeard'>
  readonly log: Log
}

/** A sidecar that listens, and the versions of the policies in what it was sent. */
interface Listener {
  readonly record: SidecarRecord
  readonly sent: Map<bigint, bigint>
  /** that its process has, as it was last attested */
  ids: ReadonlySet<string>
}

function acknowledged({ record, sent }: Listener, ack: Ack, { ledger, log }: SidecarOptions): void {
  const { version, refusal } = ack
  const policies = sent.get(version)
  // of what came before nothing will be said any more
  for (const older of sent.keys()) if (older <= version) sent.delete(older)
  if (policies === undefined) return
  if (refusal === '') {
    ledger.acknowledge(record, { acknowledged: version, policies })
    return
  }
  ledger.refuse(record, refusal)
  log.error({ spiffeId: record.id, problem: refusal }, 'a sidecar refused its policies')
}

/** Of identities that it does not have a sidecar decides nothing, whatever it says. */
function ofItsOwn(counts: DecisionCounts, ids: ReadonlySet<string>): DecisionCounts {
  const isOwn = ({ destination }: { readonly destination: string }) => ids.has(destination)
  return { ...counts, flows: counts.flows.filter(isOwn), denials: counts.denials.filter(isOwn) }
}

const mostServices = 256

/** Nobody serves as somebody else. */
function ofItsIds(services: SidecarServices, ids: ReadonlySet<string>): SidecarServices {
  const served = services.served.filter(({ spiffeId }) => ids.has(spiffeId)).slice(0, mostServices)
  return { ...services, served, wanted: services.wanted.slice(0, mostServices) }
}

function note(listener: Listener, { report }: SidecarReport, options: SidecarOptions): void {
  const { record } = listener
  const { ledger } = options
  switch (report.case) {
    case 'ack':
      acknowledged(listener, report.value, options)
      break
    case 'decisions':
      ledger.count(record, ofItsOwn(report.value, listener.ids))
      break
    case 'vitals':
      ledger.live(record, report.value)
      break
    case 'services':
      ledger.serves(record, ofItsIds(report.value, listener.ids))
      break
    case undefined:
      throw new IdentityError('ERR_BAD_REQUEST', 'report: is missing', {
        fields: [{ field: 'report', problem: 'is missing' }],
      })
  }
}

const idsOf = (entries: readonly AgentEntry[]) => new Set(entries.map(({ spiffeId }) => spiffeId))

export function sidecarService(options: SidecarOptions): Service<Caller> {
  const { knowledge, ledger, audience, services, session } = options

  async function entriesOf(caller: Caller): Promise<readonly [AgentEntry, ...AgentEntry[]]> {
    const { selectors } = await caller.attest()
    const [first, ...rest] = knowledge.entriesFor(selectors)
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
      // it has what an earlier process told it, and the disk may have less
      await session.untilHeard(context.signal)
      const entries = await entriesOf(context.peer)
      const [{ spiffeId }] = entries
      const record = ledger.open(spiffeId, context.peer.process.pid)
      using wake = createLatest<true>(context.signal)
      using _told = audience.follow(wake)
      using _ = knowledge.onChange(() => wake.push(true))
      using _services = services.onChange(() => wake.push(true))
      const listener: Listener = { record, sent: new Map(), ids: idsOf(entries) }
      const { sent } = listener
      let failure: { error: unknown } | undefined
      // not waited for: a sidecar that has lost its identity need not have said everything
      const listening = async () => {
        for await (const report of requests) note(listener, report, options)
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
          const now = await entriesOf(context.peer)
          listener.ids = idsOf(now)
          const { wanted = [] } = record.services ?? {}
          const state = stateFor(now, { knowledge, endpoints: services.of(wanted) })
          const text = stateText(state)
          if (text === told) continue
          told = text
          version++
          if (sent.size < mostUnacknowledged) sent.set(version, state.policies.version)
          yield { version, ...state }
        }
        context.signal.throwIfAborted()
      } finally {
        ledger.close(record)
      }
    },
  })
}
