// Attestation: evidence of this node against an authority that was verified before.
import { generateKeyPairSync } from 'node:crypto'
import { Code, ConnectError, createClient } from '@connectrpc/connect'
import { Agent } from '../proto/gen/spire/api/server/agent/v1/agent_pb.js'
import { Bundle } from '../proto/gen/spire/api/server/bundle/v1/bundle_pb.js'
import type { X509SVID } from '../proto/gen/spire/api/types/x509svid_pb.js'
import type { Clock } from '../runtime/clock.ts'
import type { Address } from '../runtime/config.ts'
import { createLatest } from '../runtime/lifecycle.ts'
import type { Tracer } from '../runtime/tracing/span.ts'
import { bundleOf, type X509Bundle } from '../spiffe/bundle.ts'
import { bareCsr } from '../spiffe/csr.ts'
import { IdentityError } from '../spiffe/errors.ts'
import type { NodeAttestor } from './attestors/attestor.ts'
import { joinTokenAttestor } from './attestors/join-token.ts'
import { x509PopAttestor } from './attestors/x509-pop.ts'
import { type AuthorityLink, bootstrapBundle, openLink } from './authority.ts'
import type { AgentConfig } from './config.ts'
import { type AgentSvid, receivedSvid } from './own-svid.ts'
import type { AgentState, StateFile } from './state.ts'

const callTimeout = 30_000
/** the authority's attestor for a join whose answer was lost */
const interruptedJoin = 'castellan_interrupted_join'

/** The one that is configured; a join token when nothing is. */
export function attestorOf({ joinTokenFile, x509pop }: AgentConfig): NodeAttestor {
  return x509pop === undefined ? joinTokenAttestor(joinTokenFile) : x509PopAttestor(x509pop)
}

/** Who joins. */
export interface Joining {
  readonly config: AgentConfig
  readonly state: StateFile
  readonly last: X509Bundle | undefined
}

/** To which authority, and for how long. */
export interface Way {
  readonly address: Address
  readonly clock: Clock
  readonly signal: AbortSignal
  readonly tracer: Tracer
}

/** The bundle as the authority has it now: a pin or an old file may know only a part. */
async function currentBundle(
  bundle: X509Bundle,
  { address, clock, signal, tracer }: Way,
): Promise<X509Bundle> {
  using link = openLink({ address, bundle, now: clock.now, tracer })
  const { x509Authorities } = await createClient(Bundle, link.transport).getBundle(
    {},
    { signal, timeoutMs: callTimeout },
  )
  return bundleOf(
    bundle.trustDomain,
    x509Authorities.map(({ asn1 }) => asn1),
  )
}

/**
 * The bundle as the authority has it now, vouched for by what the configuration says; by what this agent
 * believed `last` when that does not know the authority: a rotation leaves agent.yaml as it was.
 */
export async function currentRoots(
  config: AgentConfig,
  way: Way,
  last?: X509Bundle,
): Promise<X509Bundle> {
  try {
    return await currentBundle(await bootstrapBundle(config, way), way)
  } catch (error) {
    if (last === undefined || last.authorities.length === 0) throw error
    return await currentBundle(last, way).catch(() => {
      throw error
    })
  }
}

type Evidence = Pick<NodeAttestor, 'type' | 'payload' | 'respond'>

/** One attestation: what is said first, the answer to a challenge, the certificate. */
async function attest(
  { transport }: AuthorityLink,
  { type, payload, respond }: Evidence,
  csr: Uint8Array,
  signal: AbortSignal,
): Promise<X509SVID | undefined> {
  const answers = createLatest<Uint8Array>(signal)
  using _ = answers
  async function* requests() {
    const data = { type, payload: new Uint8Array(payload()) }
    yield { step: { case: 'params' as const, value: { data, params: { csr } } } }
    // one that is asked nothing has said everything
    if (respond === undefined) return
    for await (const value of answers) {
      yield { step: { case: 'challengeResponse' as const, value: new Uint8Array(value) } }
    }
  }
  for await (const { step } of createClient(Agent, transport).attestAgent(requests(), { signal })) {
    if (step.case === 'result') return step.value.svid
    if (step.case !== 'challenge' || respond === undefined) break
    answers.push(respond(step.value))
  }
  throw new IdentityError(
    'ERR_UNAVAILABLE',
    'the authority ended the attestation without an answer',
  )
}

const isUsed = (error: unknown) =>
  error instanceof ConnectError && error.code === Code.InvalidArgument

/**
 * Attests this node once. Throws what the authority answered; a used token does not become good again, but
 * an agent that was killed before it had the answer gets one, for it still has the key. `last` are the roots
 * that this agent believed before.
 */
export async function join({ config, state, last }: Joining, way: Way): Promise<AgentState> {
  const { address, clock, signal, tracer } = way
  const attestor = attestorOf(config)
  // read before anything else is done: what is missing is said first
  const payload = attestor.payload()
  const bundle = await currentRoots(config, way, last)
  using link = openLink({ address, bundle, now: clock.now, tracer })
  const { keys, isRetry } = state.beginJoin()
  const csr = new Uint8Array(bareCsr(keys))
  const svid = await attest(link, attestor, csr, signal).catch((error) => {
    if (attestor.isRepeatable || !isRetry || !isUsed(error)) throw error
    const again = { type: interruptedJoin, payload: () => payload, respond: undefined }
    return attest(link, again, csr, signal)
  })
  return { svid: receivedSvid(svid, keys.privateKey, bundle, clock.now()), bundle }
}

/** Another SVID for an agent that is attested, by evidence that is good again, with a new key. */
export async function attestAgain(
  config: AgentConfig,
  bundle: X509Bundle,
  { address, clock, signal, tracer }: Way,
): Promise<AgentSvid> {
  using link = openLink({ address, bundle, now: clock.now, tracer })
  const keys = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
  const either = AbortSignal.any([signal, AbortSignal.timeout(callTimeout)])
  const csr = new Uint8Array(bareCsr(keys))
  const svid = await attest(link, attestorOf(config), csr, either)
  return receivedSvid(svid, keys.privateKey, bundle, clock.now())
}
