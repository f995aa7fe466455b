// The first attestation: a join token against an authority that was verified before.
import { generateKeyPairSync } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createClient } from '@connectrpc/connect'
import { Agent } from '../proto/gen/spire/api/server/agent/v1/agent_pb.js'
import { Bundle } from '../proto/gen/spire/api/server/bundle/v1/bundle_pb.js'
import type { Clock } from '../runtime/clock.ts'
import { errnoOf } from '../runtime/errno.ts'
import { bundleOf, type X509Bundle } from '../spiffe/bundle.ts'
import { bareCsr } from '../spiffe/csr.ts'
import { IdentityError } from '../spiffe/errors.ts'
import { bootstrapBundle, openLink } from './authority.ts'
import type { AgentConfig } from './config.ts'
import { receivedSvid } from './own-svid.ts'
import type { AgentState } from './state.ts'

const callTimeout = 30_000

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

/** Attests this node once. Throws what the authority answered; a used token does not become good again. */
export async function join(
  config: AgentConfig,
  clock: Clock,
  signal: AbortSignal,
): Promise<AgentState> {
  const token = tokenFrom(config.joinTokenFile)
  const bundle = await currentBundle(
    await bootstrapBundle(config, { signal }),
    config,
    clock,
    signal,
  )
  using link = openLink({ address: config.authority.address, bundle, now: clock.now })
  const client = createClient(Agent, link.transport)
  const keys = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
  const data = { type: 'join_token', payload: new Uint8Array(Buffer.from(token)) }
  const params = { data, params: { csr: new Uint8Array(bareCsr(keys)) } }
  for await (const { step } of client.attestAgent(
    once({ step: { case: 'params' as const, value: params } }),
    { signal },
  )) {
    if (step.case !== 'result') break
    return { svid: receivedSvid(step.value.svid, keys.privateKey, bundle, clock.now()), bundle }
  }
  throw new IdentityError(
    'ERR_UNAVAILABLE',
    'the authority ended the attestation without an answer',
  )
}
