// What this agent has done since its start, counted for who asks later: no metrics library is loaded for it.
import { createTopic, type Topic } from '../runtime/lifecycle.ts'
import { kinds } from './proxies/ledger.ts'

export interface Counted<N extends string> {
  readonly labels: Readonly<Record<N, string>>
  readonly count: number
}

/** Numbers by labels, whose values are few: each is a member of a closed set. */
export interface Count<N extends string> {
  add(labels: Readonly<Record<N, string>>, by?: number): void
  /** Those that were zero from the start are among them: a rate needs a beginning. */
  all(): readonly Counted<N>[]
}

function createCount<N extends string>(zero: readonly Readonly<Record<N, string>>[]): Count<N> {
  const counted = new Map<string, Counted<N>>()
  const keyOf = (labels: Readonly<Record<N, string>>) => Object.values(labels).join(' ')
  for (const labels of zero) counted.set(keyOf(labels), { labels, count: 0 })
  return {
    add(labels, by = 1) {
      const key = keyOf(labels)
      counted.set(key, { labels, count: (counted.get(key)?.count ?? 0) + by })
    },
    all: () => [...counted.values()],
  }
}

/** `join` and `own` are the agent's, the others its workloads'. */
export const requestKinds = ['join', 'own', 'x509', 'jwt', 'wit'] as const
/** `refused`: the authority said no; `failed`: it could not be asked, or its answer was no good */
export const requestOutcomes = ['done', 'refused', 'failed'] as const
export type RequestKind = (typeof requestKinds)[number]
export type RequestOutcome = (typeof requestOutcomes)[number]

/** `sent` is answered by `taken` or `refused`, or not at all where something newer was sent. */
export const pushOutcomes = ['sent', 'taken', 'refused'] as const
export type PushOutcome = (typeof pushOutcomes)[number]
export type XdsApi = 'ads' | 'sds'

export interface AgentCounts {
  /** SVIDs that the authority was asked for, the first ones too */
  readonly requests: Count<'kind' | 'outcome'>
  /** what proxies were told, and said of it */
  readonly pushes: Count<'api' | 'kind' | 'outcome'>
  /** milliseconds that a decision took at the decision socket; nobody measures while nobody listens */
  readonly decided: Topic<number>
}

/** Counts what became of one question; `isNo` tells a refusal from what may go well another time. */
export async function counted<T>(
  requests: AgentCounts['requests'],
  { kind, isNo }: { readonly kind: RequestKind; readonly isNo: (error: unknown) => boolean },
  ask: () => Promise<T>,
): Promise<T> {
  try {
    const answer = await ask()
    requests.add({ kind, outcome: 'done' })
    return answer
  } catch (error) {
    requests.add({ kind, outcome: isNo(error) ? 'refused' : 'failed' })
    throw error
  }
}

export function createAgentCounts(): AgentCounts {
  const apis = [...kinds.map((kind) => ({ api: 'ads', kind })), { api: 'sds', kind: 'secrets' }]
  return {
    requests: createCount(
      requestKinds.flatMap((kind) => requestOutcomes.map((outcome) => ({ kind, outcome }))),
    ),
    pushes: createCount(apis.flatMap((it) => pushOutcomes.map((outcome) => ({ ...it, outcome })))),
    decided: createTopic(),
  }
}
