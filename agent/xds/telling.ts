// What one proxy is told to be: the newest of it, in an order that breaks nothing, and that lets nobody back in.

import type { Clock } from '../../runtime/clock.ts'
import type { AgentEntry } from '../entries.ts'
import type { Cuts } from '../proxies/cuts.ts'
import type { Driven, Driving } from '../proxies/driven.ts'
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

export interface TellingOptions<Req, Res> {
  readonly driven: Pick<Driven, 'of'>
  readonly record: ProxyRecord
  readonly told: Told<Req, Res>
  /** what its start lets a person expect of an Envoy */
  readonly started: readonly string[]
  readonly note: (kind: Kind, response: Res) => Res
  readonly clock: Pick<Clock, 'now'>
}

/** milliseconds for a proxy to take what keeps somebody out: a cluster that warms holds its answer back */
const patience = 3000

/** What one proxy is told to be, beside its secrets. `note` hears of each answer. */
export function createTelling<Req, Res>(options: TellingOptions<Req, Res>) {
  const { driven, record, told, note, started, clock } = options
  let driving: Driving | undefined
  /** the newest that the proxy was told of */
  let cuts: Cuts | undefined
  /** since when there are others, in milliseconds since the epoch */
  let waitingSince: number | undefined

  function settle(): void {
    const { snapshot, policies } = driving ?? {}
    if (snapshot === undefined || policies === undefined) return
    const isEmpty = (kind: Kind) => kind === 'routes' && snapshot.routes.size === 0
    if (isInForce(record, isEmpty)) record.policies = policies
  }

  function tell(entries: readonly AgentEntry[]): Answers<Res> {
    driving = driven.of(entries, record.form, cuts)
    record.id = driving?.id
    const { snapshot } = driving ?? { snapshot: nothing }
    if (snapshot === undefined) return { responses: [] }
    cuts ??= driving?.cuts
    record.closed = [...snapshot.enforcement.values()].filter(({ by }) => by === 'closed').length
    const expected = driving !== undefined && record.form === 'envoy' ? started : []
    record.remarks = [...remarksOf(snapshot), ...expected]
    const responses = answersOf(told, snapshot).map(({ kind, response }) => note(kind, response))
    settle()
    return { responses, until: snapshot.changesAt }
  }

  return {
    settle,
    of: tell,
    /**
     * Of connections that are to be made anew, when there is no other news: whoever is denied cannot come back, since
     * what says so was taken, or refused; or the proxy has been silent about something for too long.
     */
    cut(entries: readonly AgentEntry[]): Answers<Res> | undefined {
      if (driving?.snapshot === undefined || cuts === driving.cuts) return undefined
      waitingSince ??= clock.now()
      const late = waitingSince + patience
      const areSettled = [...told.protocols.values()].every((it) => it.isSettled())
      if (!areSettled && clock.now() < late) return { responses: [], until: late }
      waitingSince = undefined
      cuts = driving.cuts
      return tell(entries)
    },
  }
}
