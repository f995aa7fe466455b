// A connection to the decision socket and what its process may have: attested when it asks first, and again when
// it or the entries are not what they were. Between that an answer waits for nobody.
import type { Clock } from '../../runtime/clock.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import type { Caller } from '../attest/caller.ts'
import type { Knowledge } from '../knowledge.ts'
import type { Attested } from '../workload-api/entitled.ts'
import type { Standing, Standings } from './standing.ts'

export interface Visitor extends Disposable {
  readonly process: Caller['process']
  /** Throws, or rejects, with ERR_UNAVAILABLE while it cannot be told, ERR_DENIED when the process has ended. */
  standing(): Standing | Promise<Standing>
}

export interface VisitorsOptions {
  readonly knowledge: Pick<Knowledge, 'entriesFor' | 'selectorKinds' | 'isComplete' | 'onChange'>
  readonly standings: Standings
  readonly clock: Pick<Clock, 'monotonic'>
}

/** milliseconds for which an answer of before holds: a rule of the deny-list may begin or end meanwhile */
const fresh = 1000

function unavailable(why: string): never {
  throw new IdentityError('ERR_UNAVAILABLE', why, { retryAfter: 1000 })
}

/** How often what the agent knows has changed. */
function createEpoch(knowledge: VisitorsOptions['knowledge']) {
  let epoch = 0
  const subscription = knowledge.onChange(() => void epoch++)
  return { now: () => epoch, [Symbol.dispose]: () => subscription[Symbol.dispose]() }
}

type Known = {
  readonly standing: Standing
  readonly epoch: number
  readonly at: number
}

export interface Visitors extends Disposable {
  visit(caller: Caller): Visitor
}

export function createVisitors(options: VisitorsOptions): Visitors {
  const { knowledge, standings, clock } = options
  const epoch = createEpoch(knowledge)

  function standingOf({ selectors, failed }: Attested): Standing {
    if (!knowledge.isComplete()) unavailable('the agent has not heard from its authority yet')
    const entries = knowledge.entriesFor(selectors)
    if (entries.length === 0 && failed.size > 0)
      unavailable(`what the caller is cannot be told now (${[...failed].join(', ')})`)
    return standings.of(entries)
  }

  function visit(caller: Caller): Visitor {
    let attested: { readonly result: Attested; readonly kinds: string } | undefined
    let known: Known | undefined
    let changes = 0
    let looking: Promise<Standing> | undefined
    const following = caller.onChange(() => {
      changes++
      attested = undefined
      known = undefined
    })

    function take(result: Attested): Standing {
      const standing = standingOf(result)
      known = { standing, epoch: epoch.now(), at: clock.monotonic() }
      return standing
    }

    async function look(): Promise<Standing> {
      const [before, kinds] = [changes, knowledge.selectorKinds()]
      const result = await caller.attest()
      // what changed meanwhile is looked at by whoever asks next
      if (before !== changes) return standingOf(result)
      // what could not be told now may be told next time
      attested = result.failed.size === 0 ? { result, kinds } : undefined
      return take(result)
    }

    return {
      process: caller.process,
      standing() {
        const now = clock.monotonic()
        if (known?.epoch === epoch.now() && now - known.at < fresh) return known.standing
        if (attested !== undefined && attested.kinds === knowledge.selectorKinds())
          return take(attested.result)
        looking ??= look().finally(() => {
          looking = undefined
        })
        return looking
      },
      [Symbol.dispose]() {
        following[Symbol.dispose]()
        caller[Symbol.dispose]()
      },
    }
  }

  return { visit, [Symbol.dispose]: epoch[Symbol.dispose] }
}
