// An agent that was started for this run, with entries for this process.
import type { Foreign } from './foreign.ts'
import type { Operator } from './operator.ts'
import { type Backstage, untilServed } from './scene.ts'

export interface Subject extends AsyncDisposable {
  readonly name: string
  readonly socket: string
  readonly backstage: Backstage
}

/** Two identities with hints, one of which sees two other trust domains. */
export async function prepare(
  socket: string,
  operator: Operator,
  foreign: Foreign,
): Promise<Backstage> {
  const federatesWith = [foreign.trustDomain, foreign.withoutTokens]
  const entries = [
    await operator.register({ path: '/conformance/one', hint: 'one', federatesWith }),
    await operator.register({ path: '/conformance/two', hint: 'two' }),
  ]
  await untilServed(socket, entries.length, federatesWith)
  return {
    entries,
    operator: { kind: 'there', it: operator },
    foreign: { kind: 'there', it: foreign },
  }
}
