// What the services of all sockets share: who asks, what it may have, and the answers of each profile.
import type { Socket } from 'node:net'
import { type Caller, createCallers } from './attest/caller.ts'
import { admitPerUser, crowdLimits, mostDescriptors } from './attest/crowd.ts'
import { createExplainProcess, type ExplainProcess } from './attest/explain.ts'
import { createPace } from './attest/pace.ts'
import { createReferences, type References } from './attest/reference.ts'
import { openAttestation } from './attest/workload-attestor.ts'
import type { Core } from './core.ts'
import { createEntitled, type Entitled } from './workload-api/entitled.ts'
import { type JwtProfile, jwtProfile } from './workload-api/jwt.ts'
import { type WitProfile, witProfile } from './workload-api/wit.ts'
import { type X509Answers, x509Answers } from './workload-api/x509.ts'

export interface Serving {
  /** Throws ERR_DENIED for a connection that nobody can be seen behind. */
  readonly callers: (socket: Socket) => Caller
  /** The same for a socket that all users may connect to; throws ERR_EXHAUSTED for one too many. */
  readonly crowd: (socket: Socket) => Caller
  /** Throws ERR_EXHAUSTED for a call too many of a user. */
  readonly pace: (uid: number) => void
  readonly explain: ExplainProcess
  readonly references: References
  readonly entitled: Entitled
  readonly x509: X509Answers
  readonly jwt: JwtProfile
  readonly wit: WitProfile
}

/** Throws ERR_CONFIG where nothing could be told of anybody. */
export function openServing(core: Core): Serving {
  const { config, knowledge, cache, tokens, session, audience, clock, log } = core
  const { connections, callsPerSecond, callsAtOnce } = config.limits
  const attestation = openAttestation(config.attestors, clock)
  const callers = createCallers({ ...attestation, knowledge, clock, log })
  const room = crowdLimits(connections, mostDescriptors(attestation.proc.text('self', 'limits')))
  return {
    callers,
    crowd: admitPerUser(callers, { ...room, log }),
    pace: createPace({ perSecond: callsPerSecond, atOnce: callsAtOnce, clock, log }),
    explain: createExplainProcess({ ...attestation, knowledge }),
    references: createReferences({ ...attestation, knowledge, clock }),
    entitled: createEntitled({ knowledge, clock, audience, onChange: cache.onChange }),
    x509: x509Answers(knowledge, cache),
    jwt: jwtProfile({ knowledge, tokens, clock, request: session.requestJwt }),
    wit: witProfile({ knowledge, tokens, request: session.requestWit }),
  }
}
