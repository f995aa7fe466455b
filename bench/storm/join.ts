// One agent in the storm: joins with its token over a connection of its own, as often as it takes, and waits
// as long as the authority says, or as an agent of ours does when it says nothing.
import type { KeyObject } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import type { SecureContext } from 'node:tls'
import { createBackoff } from '../../runtime/backoff.ts'
import { connectAgent } from '../agents/connection.ts'
import { attest, type Joined } from '../agents/crowd.ts'

export interface Node {
  readonly token: string
  readonly csr: Uint8Array
  readonly key: KeyObject
}

/** What all nodes met on their way. */
export interface Weather {
  /** RESOURCE_EXHAUSTED, and those of them that said when to come again */
  exhausted: number
  delayed: number
  /** connections that were refused, late or broken */
  broken: number
}

export interface Storm {
  /** without a certificate */
  readonly anonymous: SecureContext
  readonly weather: Weather
  /** of `performance.now()`: who has not joined by then stays outside */
  readonly deadline: number
}

const [invalidArgument, resourceExhausted, unavailable] = [3, 8, 14]
/** for a token that was used up by an attempt whose answer was lost */
const interrupted = 'castellan_interrupted_join'

type Outcome =
  | { readonly kind: 'joined'; readonly joined: Joined }
  | { readonly kind: 'later'; readonly wait: number | undefined }
  | { readonly kind: 'used' }

async function attempt(
  { token, csr, type }: Node & { readonly type: string },
  port: number,
  anonymous: SecureContext,
  weather: Weather,
): Promise<Outcome> {
  try {
    using connection = await connectAgent(port, anonymous)
    const { answer, joined } = await attest(connection, { type, token, csr })
    if (joined !== undefined) return { kind: 'joined', joined }
    const { code, retryAfter: wait, message } = answer
    if (code === resourceExhausted) weather.exhausted++
    if (wait !== undefined) weather.delayed++
    if (code === resourceExhausted || code === unavailable) return { kind: 'later', wait }
    if (code === invalidArgument) return { kind: 'used' }
    throw new TypeError(`an agent cannot join: ${message}`)
  } catch (error) {
    if (error instanceof TypeError) throw error
    weather.broken++
    return { kind: 'later', wait: undefined }
  }
}

/** Undefined when it is still outside at the deadline. */
export async function joinAtLast(
  node: Node,
  port: number,
  { anonymous, weather, deadline }: Storm,
): Promise<Joined | undefined> {
  const backoff = createBackoff()
  let type = 'join_token'
  while (performance.now() < deadline) {
    const outcome = await attempt({ ...node, type }, port, anonymous, weather)
    switch (outcome.kind) {
      case 'joined':
        return outcome.joined
      case 'used':
        if (type === interrupted) throw new Error('an agent cannot join: its token is used')
        type = interrupted
        break
      case 'later':
        await delay(outcome.wait ?? backoff.next())
    }
  }
  return undefined
}
