// Whether the authority has banned an agent whose certificate is good no more: it lets one that has merely
// expired connect, to be told so.
import { Code, ConnectError, createClient } from '@connectrpc/connect'
import { Agent } from '../proto/gen/spire/api/server/agent/v1/agent_pb.js'
import {
  PermissionDeniedDetailsSchema,
  PermissionDeniedDetails_Reason as Reason,
} from '../proto/gen/spire/api/types/status_pb.js'
import { openLink } from './authority.ts'
import type { Way } from './join.ts'
import type { AgentState } from './state.ts'

const callTimeout = 30_000

/** Why the authority says no, in SPIRE's words; empty when it does not say, or says something else. */
export function reasonsIn(error: unknown): readonly Reason[] {
  if (!(error instanceof ConnectError) || error.code !== Code.PermissionDenied) return []
  return error.findDetails(PermissionDeniedDetailsSchema).map(({ reason }) => reason)
}

/** Throws the authority's words when it says that this agent is banned; nothing else counts. */
export async function refuseBanned({ svid, bundle }: AgentState, way: Way): Promise<void> {
  const { address, clock, signal, tracer } = way
  try {
    using link = openLink({ address, bundle, svid, now: clock.now, tracer })
    const options = { signal, timeoutMs: callTimeout }
    await createClient(Agent, link.transport).postStatus({ agentVersion: '0.1.0' }, options)
  } catch (error) {
    if (reasonsIn(error).includes(Reason.AGENT_BANNED)) throw error
  }
}
