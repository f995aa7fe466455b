// The first attestation: a join token against an authority that was verified before.
import { readFileSync } from 'node:fs'
import { Code, ConnectError, createClient } from '@connectrpc/connect'
import { Agent } from '../proto/gen/spire/api/server/agent/v1/agent_pb.js'
import { Bundle } from '../proto/gen/spire/api/server/bundle/v1/bundle_pb.js'
import type { X509SVID } from '../proto/gen/spire/api/types/x509svid_pb.js'
import type { Clock } from '../runtime/clock.ts'
import { errnoOf } from '../runtime/errno.ts'
import { bundleOf, type X509Bundle } from '../spiffe/bundle.ts'
import { bareCsr } from '../spiffe/csr.ts'
import { IdentityError } from '../spiffe/errors.ts'
import { type AuthorityLink, bootstrapBundle, openLink } from './authority.ts'
import type { AgentConfig } from './config.ts'
import { receivedSvid } from './own-svid.ts'
import type { AgentState, StateFile } from './state.ts'

const callTimeout = 30_000
/** the authority's attestor for a join whose answer was lost */
const interruptedJoin = 'castellan_interrupted_join'

function tokenFrom(path: string | undefined): string {
  if (path === undefined) {
    throw new IdentityError(
      'ERR_CONFIG',
      'this agent has no identity yet: set joinTokenFile to a file with the token that `castellan token create` prints',
    )
  }
  try {
    return readFileSync(path, 'utf8').trim()
  } catch (cause) {
    throw new IdentityError(
      'ERR_CONFIG',
      `cannot read the join token from ${path} (${errnoOf(cause)})`,
      { cause },
    )
  }
}

async function* once<T>(value: T): AsyncGenerator<T> {
  yield value
}

/** The bundle as the authority has it now: a pin or an old file may know only a part. */
async function currentBundle(
  bundle: X509Bundle,
  config: AgentConfig,
  clock: Clock,
  signal: AbortSignal,
): Promise<X509Bundle> {
  using link = openLink({ address: config.authority.address, bundle, now: clock.now })
  const { x509Authorities } = await createClient(Bundle, link.transport).getBundle(
    {},
    { signal, timeoutMs: callTimeout },
  )
  return bundleOf(
    config.trustDomain,
    x509Authorities.map(({ asn1 }) => asn1),
  )
}

interface Evidence {
  readonly type: string
  readonly payload: Uint8Array
  readonly csr: Uint8Array
}

async function attest(
  link: AuthorityLink,
  { csr, ...data }: Evidence,
  signal: AbortSignal,
): Promise<X509SVID | undefined> {
  const params = { step: { case: 'params' as const, value: { data, params: { csr } } } }
  const client = createClient(Agent, link.transport)
  for await (const { step } of client.attestAgent(once(params), { signal })) {
    if (step.case !== 'result') break
    return step.value.svid
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
 * an agent that was killed before it had the answer gets one, for it still has the key.
 */
export async function join(
  config: AgentConfig,
  state: StateFile,
  { clock, signal }: { readonly clock: Clock; readonly signal: AbortSignal },
): Promise<AgentState> {
  const token = tokenFrom(config.joinTokenFile)
  const bundle = await currentBundle(
    await bootstrapBundle(config, { signal }),
    config,
    clock,
    signal,
  )
  using link = openLink({ address: config.authority.address, bundle, now: clock.now })
  const { keys, isRetry } = state.beginJoin()
  const payload = new Uint8Array(Buffer.from(token))
  const csr = new Uint8Array(bareCsr(keys))
  const svid = await attest(link, { type: 'join_token', payload, csr }, signal).catch((error) => {
    if (!isRetry || !isUsed(error)) throw error
    return attest(link, { type: interruptedJoin, payload, csr }, signal)
  })
  return { svid: receivedSvid(svid, keys.privateKey, bundle, clock.now()), bundle }
}
