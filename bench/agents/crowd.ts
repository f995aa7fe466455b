// Many agents at once: their tokens, how they join, and bounded work over all of them.
import type { KeyObject } from 'node:crypto'
import { createSecureContext, type SecureContext } from 'node:tls'
import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import {
  Agent,
  AttestAgentRequestSchema,
  AttestAgentResponseSchema,
} from '../../proto/gen/spire/api/server/agent/v1/agent_pb.js'
import { keyPairToPem } from '../../spiffe/pem.ts'
import { connectLocally } from '../../test/support/ca-client.ts'
import type { AgentConnection, Answer } from './connection.ts'

/** Does `work` for each of `count` numbers, at most `inFlight` of them at a time. */
export async function each(
  count: number,
  inFlight: number,
  work: (index: number) => Promise<void>,
): Promise<void> {
  let next = 0
  async function worker() {
    while (next < count) await work(next++)
  }
  await Promise.all(Array.from({ length: Math.min(count, inFlight) }, worker))
}

/** `count` join tokens, good for an hour. */
export async function createTokens(socket: string, count: number): Promise<readonly string[]> {
  using local = connectLocally(socket)
  const client = local.client(Agent)
  const tokens: string[] = []
  await each(count, 100, async (index) => {
    tokens[index] = (await client.createJoinToken({ ttl: 3600 })).value
  })
  return tokens
}

export interface Joined {
  /** path of the agent's ID */
  readonly path: string
  readonly chain: readonly Uint8Array[]
}

export interface Evidence {
  readonly type: string
  readonly token: string
  readonly csr: Uint8Array
}

const attestMethod = 'spire.api.server.agent.v1.Agent/AttestAgent'

/** One attestation, and what came of it. */
export async function attest(
  connection: AgentConnection,
  { type, token, csr }: Evidence,
): Promise<{ readonly answer: Answer; readonly joined: Joined | undefined }> {
  const data = { type, payload: Buffer.from(token) }
  const params = { data, params: { csr } }
  const request = create(AttestAgentRequestSchema, { step: { case: 'params', value: params } })
  const answer = await connection.call(attestMethod, toBinary(AttestAgentRequestSchema, request))
  const [message] = answer.messages
  if (answer.code !== 0 || message === undefined) return { answer, joined: undefined }
  const { step } = fromBinary(AttestAgentResponseSchema, message)
  if (step.case !== 'result' || step.value.svid === undefined) return { answer, joined: undefined }
  const { id, certChain } = step.value.svid
  return { answer, joined: { path: id?.path ?? '', chain: certChain } }
}

/** What a connection of an agent that has joined is made with. */
export function contextOf(roots: string, { chain }: Joined, key: KeyObject): SecureContext {
  return createSecureContext({ ca: roots, ...keyPairToPem({ chain, key }) })
}
