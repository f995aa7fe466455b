// The calls that an agent makes over one connection to its authority.
import { generateKeyPairSync } from 'node:crypto'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { createClient, type Transport } from '@connectrpc/connect'
import { type AgentMessageSchema, Control } from '../proto/gen/castellan/control/v1/control_pb.js'
import { Agent } from '../proto/gen/spire/api/server/agent/v1/agent_pb.js'
import { SVID } from '../proto/gen/spire/api/server/svid/v1/svid_pb.js'
import type { X509SVID } from '../proto/gen/spire/api/types/x509svid_pb.js'
import type { Clock } from '../runtime/clock.ts'
import { createLatest, every } from '../runtime/lifecycle.ts'
import type { Log } from '../runtime/log.ts'
import { bundleSourceOf } from '../spiffe/bundle.ts'
import { parseCertificate } from '../spiffe/certificate.ts'
import { bareCsr } from '../spiffe/csr.ts'
import { IdentityError } from '../spiffe/errors.ts'
import { renewalPoint, taintPoint } from '../spiffe/renewal.ts'
import { verifySvid } from '../spiffe/svid.ts'
import type { Knowledge } from './knowledge.ts'
import { type AgentSvid, receivedSvid } from './own-svid.ts'

type Outgoing = MessageInitShape<typeof AgentMessageSchema>

export interface Work {
  readonly transport: Transport
  readonly knowledge: Knowledge
  readonly clock: Clock
  readonly signal: AbortSignal
}

const callTimeout = 30_000
const longestSilence = 60_000

export interface Following {
  /** a message was taken in */
  readonly connected: () => void
  /** Puts the bundle on disk. */
  readonly persist: () => void
  readonly log: Log
}

/** Why a leaf of an authority that is about to sign would not be believed; undefined when all would. */
function rehearse(canaries: readonly Uint8Array[], knowledge: Knowledge, now: number): unknown {
  try {
    const bundles = bundleSourceOf(knowledge.bundle())
    for (const canary of canaries) verifySvid([canary], bundles, { now })
    return undefined
  } catch (error) {
    return error
  }
}

/**
 * Follows the control stream: each message is taken in, a bundle is on disk before it is acknowledged.
 * Never returns; throws when the stream ends, or nothing was heard for three heartbeats.
 */
export async function followControl(
  { transport, knowledge, clock, signal }: Work,
  { connected, persist, log }: Following,
): Promise<never> {
  const silent = new AbortController()
  const either = AbortSignal.any([signal, silent.signal])
  using acknowledgements = createLatest<bigint>(either)
  const place = knowledge.place()
  async function* outgoing(): AsyncGenerator<Outgoing> {
    yield { message: { case: 'hello', value: { ...place, version: '0.1.0' } } }
    for await (const cursor of acknowledgements) {
      yield { message: { case: 'acknowledged', value: { cursor } } }
    }
  }
  let heard = clock.monotonic()
  let canaries: readonly Uint8Array[] = []
  await using _ = every(clock, 5000, () => {
    if (clock.monotonic() - heard > longestSilence)
      silent.abort(new Error('the authority is silent'))
  })
  const client = createClient(Control, transport)
  for await (const message of client.subscribe(outgoing(), { signal: either })) {
    heard = clock.monotonic()
    knowledge.apply(message)
    if (message.bundle !== undefined) {
      persist()
      canaries = message.canaries
    }
    // with each heartbeat too: a clock that was behind may be right by now
    const failure = rehearse(canaries, knowledge, clock.now())
    knowledge.rehearsed(failure === undefined)
    if (failure !== undefined) log.error({ err: failure }, 'a new authority cannot be believed')
    // one that does not pass the rehearsal stays where it was: it holds the rotation up, and the authority
    // shows it
    acknowledgements.push(knowledge.place().cursor)
    connected()
  }
  throw new IdentityError('ERR_UNAVAILABLE', 'the authority ended the stream')
}

/** The renewal point as it is when it is asked for: its authority may be tainted meanwhile. */
function pointOf({ chain, receivedAt, notAfter }: AgentSvid, knowledge: Knowledge): () => number {
  const [leaf = new Uint8Array()] = chain
  const { issuer } = parseCertificate(leaf)
  const point = renewalPoint(leaf, receivedAt, notAfter)
  return () => {
    const taintedAt = knowledge.taintedAt(issuer)
    return taintedAt === undefined ? point : Math.min(point, taintPoint(leaf, taintedAt, notAfter))
  }
}

/** Waits for the renewal point of the agent's own SVID. */
export async function untilDue(svid: AgentSvid, work: Omit<Work, 'transport'>): Promise<void> {
  const { knowledge, clock, signal } = work
  const point = pointOf(svid, knowledge)
  for (let left = point() - clock.now(); left > 0; left = point() - clock.now()) {
    await clock.sleep(Math.min(1000, left), { signal })
  }
}

/** A new SVID for the agent itself, with a new key. */
export async function renewOwn(work: Work): Promise<AgentSvid> {
  const { transport, knowledge, clock, signal } = work
  const keys = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
  const params = { csr: new Uint8Array(bareCsr(keys)) }
  const answer = await createClient(Agent, transport).renewAgent(
    { params },
    { signal, timeoutMs: callTimeout },
  )
  return receivedSvid(answer.svid, keys.privateKey, knowledge.bundle(), clock.now())
}

/** Asks for workload SVIDs; an item that is refused is logged and missing in the answer. */
export async function requestSvids(
  transport: Transport,
  params: readonly { readonly entryId: string; readonly csr: Uint8Array }[],
  log: Log,
): Promise<readonly (X509SVID | undefined)[]> {
  const items = params.map(({ entryId, csr }) => ({ entryId, csr: new Uint8Array(csr) }))
  const client = createClient(SVID, transport)
  const { results } = await client.batchNewX509SVID({ params: items }, { timeoutMs: callTimeout })
  return results.map(({ status, svid }, i) => {
    if (status?.code === 0) return svid
    log.warn({ entryId: items[i]?.entryId, problem: status?.message }, 'an SVID was refused')
    return undefined
  })
}
