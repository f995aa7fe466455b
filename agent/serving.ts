// What the services of all sockets share: who asks, what it may have, and the answers of each profile.
import type { Socket } from 'node:net'
import { type Caller, createCallers } from './attest/caller.ts'
import { admitPerUser } from './attest/crowd.ts'
import { createExplainProcess, type ExplainProcess } from './attest/explain.ts'
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
  readonly explain: ExplainProcess
  readonly references: References
  readonly entitled: Entitled
  readonly x509: X509Answers
  readonly jwt: JwtProfile
  readonly wit: WitProfile
}

/** Throws ERR_CONFIG where nothing could be told of anybody. */
export function openServing(core: Core): Serving {
  const { config, knowledge, cache, tokens, session, clock, log } = core
  const attestation = openAttestation(config.attestors, clock)
  return {
    callers: admitPerUser(createCallers({ ...attestation, knowledge, clock, log })),
    explain: createExplainProcess({ ...attestation, knowledge }),
    references: createReferences({ ...attestation, knowledge, clock }),
    entitled: createEntitled({ knowledge, clock, onChange: cache.onChange }),
    x509: x509Answers(knowledge, cache),
    jwt: jwtProfile({ knowledge, tokens, clock, request: session.requestJwt }),
    wit: witProfile({ knowledge, tokens, request: session.requestWit }),
  }
}
