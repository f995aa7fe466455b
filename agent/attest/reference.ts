// A workload that somebody else asks for: by its pid, or by what it is said to be.
import type { Clock } from '../../runtime/clock.ts'
import { createTopic, every } from '../../runtime/lifecycle.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import type { Knowledge } from '../knowledge.ts'
import { createDemand, type Demand } from './demand.ts'
import type { PodReference } from './kubelet.ts'
import type { PeerProcess } from './peer-credentials.ts'
import { podWorkload } from './pod-workload.ts'
import type { ReferredWorkload } from './referred-workload.ts'
import type { OpenAttestation } from './workload-attestor.ts'

/** milliseconds between two looks at a process that somebody else asks for */
const lookEvery = 1000
const largestPid = 4_194_304

export interface ReferenceOptions extends OpenAttestation {
  readonly knowledge: Pick<Knowledge, 'entries' | 'onChange'>
  readonly clock: Clock
}

export interface References {
  /** undefined where nobody says what pods there are. Throws ERR_NOT_FOUND, ERR_UNAVAILABLE. */
  readonly byPod: ((reference: PodReference) => Promise<ReferredWorkload>) | undefined
  /** Throws ERR_BAD_REQUEST, and ERR_NOT_FOUND when there is no such process. */
  byPid(pid: number, field: string): ReferredWorkload
}

function ended(pid: number): never {
  throw new IdentityError('ERR_NOT_FOUND', `process ${pid} has ended`)
}

function workloadOf(
  process: PeerProcess,
  { attestor, proc, clock }: ReferenceOptions,
  demand: () => Demand,
): ReferredWorkload {
  const { pid } = process
  const topic = createTopic<void>()
  const stop = new AbortController()
  let seen = proc.look(pid)
  const looking = every(clock, lookEvery, () => {
    const now = process.isAlive() ? proc.look(pid) : ''
    if (now !== seen) topic.publish()
    seen = now
  })
  return {
    isAlive: () => process.isAlive(),
    onChange: (listener) => topic.subscribe(listener),
    async attest() {
      if (!process.isAlive()) ended(pid)
      return await attestor.attest(process, demand(), { signal: stop.signal })
    },
    async [Symbol.asyncDispose]() {
      stop.abort(new Error('nobody asks for this workload any more'))
      await looking[Symbol.asyncDispose]()
      process[Symbol.dispose]()
    },
  }
}

export function createReferences(options: ReferenceOptions): References {
  const demand = createDemand(options.knowledge)
  const { pods, clock } = options
  return {
    byPod: pods && ((reference) => podWorkload(reference, { pods, clock })),
    byPid(pid, field) {
      if (pid < 1 || pid > largestPid) {
        const problem = 'is no process id'
        throw new IdentityError('ERR_BAD_REQUEST', `${field}: ${problem}`, {
          fields: [{ field, problem }],
        })
      }
      return workloadOf(options.processes.open(pid), options, demand)
    },
  }
}

/** A workload that is nothing but what it is said to be. */
export function describedBy(selectors: ReadonlySet<string>): ReferredWorkload {
  return {
    attest: async () => ({ selectors, failed: new Set() }),
    isAlive: () => true,
    onChange: () => ({ [Symbol.dispose]: () => {} }),
    [Symbol.asyncDispose]: async () => {},
  }
}
