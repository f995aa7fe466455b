// What one proxy is told to be: the newest of it, in an order that breaks nothing, and that lets nobody back in.

import { argumentsOf } from '../attest/proc.ts'
import type { AgentEntry } from '../entries.ts'
import type { Driven, Driving } from '../proxies/driven.ts'
import { drainRemarks } from '../proxies/envoy/drain.ts'
import type { Resources, Snapshot } from '../proxies/envoy/snapshot.ts'
import { isInForce, type Kind, type ProxyRecord } from '../proxies/ledger.ts'
import type { Answers } from './converse.ts'
import { answersOf, type Told } from './snapshot-answers.ts'

const none: Resources = new Map()

/** For a proxy that this agent has no spec of: it gets secrets, and is nothing else. */
const nothing: Snapshot = {
  ...{ clusters: none, endpoints: none, listeners: none, routes: none },
  enforcement: new Map(),
  changesAt: undefined,
}

function remarksOf({ enforcement, remarks = [] }: Snapshot): string[] {
  const deciding = [...enforcement].flatMap(([name, { by, reasons }]) => {
    const who = by === 'asked' ? 'the agent decides' : 'nobody gets in'
    return by === 'native' ? [] : [`${name}: ${who}: ${reasons.join('; ')}`]
  })
  return [...deciding, ...remarks]
}

/** What the command line of an Envoy lets one expect. */
const started = ({ form, pid }: ProxyRecord): readonly string[] =>
  form === 'envoy' ? drainRemarks(argumentsOf(pid)) : []

export interface TellingOptions<Req, Res> {
  readonly driven: Pick<Driven, 'of'>
  readonly record: ProxyRecord
  readonly told: Told<Req, Res>
  readonly note: (kind: Kind, response: Res) => Res
}

/** What one proxy is told to be, beside its secrets. `note` hears of each answer. */
export function createTelling<Req, Res>({ driven, record, told, note }: TellingOptions<Req, Res>) {
  let driving: Driving | undefined
  /** the newest that the proxy was told of */
  let cut: string | undefined

  function tell(entries: readonly AgentEntry[]): Answers<Res> {
    driving = driven.of(entries, record.form, cut)
    record.id = driving?.id
    const { snapshot } = driving ?? { snapshot: nothing }
    if (snapshot === undefined) return { responses: [] }
    cut ??= driving?.cut
    record.closed = [...snapshot.enforcement.values()].filter(({ by }) => by === 'closed').length
    record.remarks = [...remarksOf(snapshot), ...(driving === undefined ? [] : started(record))]
    const responses = answersOf(told, snapshot).map(({ kind, response }) => note(kind, response))
    return { responses, until: snapshot.changesAt }
  }

  function settle(): void {
    const { snapshot, policies } = driving ?? {}
    if (snapshot === undefined || policies === undefined) return
    const isEmpty = (kind: Kind) => kind === 'routes' && snapshot.routes.size === 0
    if (isInForce(record, isEmpty)) record.policies = policies
  }

  return {
    settle,
    /** Connections are cut once whoever is denied cannot come back: what says so was taken, or refused. */
    of(entries: readonly AgentEntry[]): Answers<Res> {
      let answers = tell(entries)
      const areSettled = [...told.protocols.values()].every((it) => it.isSettled())
      const isOver = answers.responses.length === 0 && areSettled
      if (isOver && driving !== undefined && cut !== driving.cut) {
        cut = driving.cut
        answers = tell(entries)
      }
      settle()
      return answers
    },
  }
}
