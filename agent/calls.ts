// The calls that an agent makes over one connection to its authority.
import { generateKeyPairSync } from 'node:crypto'
import { Code, ConnectError, createClient, type Transport } from '@connectrpc/connect'
import { Agent } from '../proto/gen/spire/api/server/agent/v1/agent_pb.js'
import { SVID } from '../proto/gen/spire/api/server/svid/v1/svid_pb.js'
import type { X509SVID } from '../proto/gen/spire/api/types/x509svid_pb.js'
import type { Clock } from '../runtime/clock.ts'
import type { Log } from '../runtime/log.ts'
import { parseCertificate } from '../spiffe/certificate.ts'
import { bareCsr } from '../spiffe/csr.ts'
import { IdentityError } from '../spiffe/errors.ts'
import { renewalPoint, taintPoint } from '../spiffe/renewal.ts'
import type { Knowledge } from './knowledge.ts'
import { type AgentSvid, receivedSvid } from './own-svid.ts'

export interface Work {
  readonly transport: Transport
  readonly knowledge: Knowledge
  readonly clock: Clock
  readonly signal: AbortSignal
}

const callTimeout = 30_000

/** The renewal point as it is when it is asked for: its authority may be tainted meanwhile. */
function pointOf({ chain, receivedAt, notAfter }: AgentSvid, knowledge: Knowledge): () => number {
  const [leaf = new Uint8Array()] = chain
  const { issuer } = parseCertificate(leaf)
  const point = renewalPoint(leaf, receivedAt, notAfter)
  return () => {
    const taintedAt = knowledge.taints().ofAuthority(issuer)
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

/** What an authority answers to one who asks for a token: no is no, everything else may change. */
function tokenRefusal(error: unknown): IdentityError {
  const { code, rawMessage } = ConnectError.from(error)
  const no: readonly Code[] = [Code.PermissionDenied, Code.NotFound, Code.InvalidArgument]
  return no.includes(code)
    ? new IdentityError('ERR_DENIED', `the authority gives no token: ${rawMessage}`)
    : new IdentityError('ERR_UNAVAILABLE', 'no token can be had from the authority now', {
        cause: error,
        retryAfter: 1000,
      })
}

const milliseconds = (seconds: bigint) => Number(seconds) * 1000

/** A JWT-SVID of that entry. Throws ERR_DENIED, or ERR_UNAVAILABLE with a delay. */
export async function requestJwt(
  transport: Transport,
  { entryId, audience }: { readonly entryId: string; readonly audience: readonly string[] },
) {
  try {
    const { svid } = await createClient(SVID, transport).newJWTSVID(
      { entryId, audience: [...audience] },
      { timeoutMs: callTimeout },
    )
    return { token: svid?.token ?? '', expiresAt: milliseconds(svid?.expiresAt ?? 0n) }
  } catch (error) {
    throw tokenRefusal(error)
  }
}

/** A WIT-SVID of that entry for a new key of the workload's. Throws as `requestJwt`. */
export async function requestWit(transport: Transport, { entryId }: { readonly entryId: string }) {
  const keys = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
  const publicKey = new Uint8Array(keys.publicKey.export({ format: 'der', type: 'spki' }))
  const params = [{ entryId, publicKey, signingAlgorithm: 'ES256' }]
  const client = createClient(SVID, transport)
  const asked = client.batchNewWITSVID({ params }, { timeoutMs: callTimeout })
  const { results } = await asked.catch((error: unknown) => {
    throw tokenRefusal(error)
  })
  const [{ status, svid } = { status: undefined, svid: undefined }] = results
  if (status?.code !== 0 || svid === undefined)
    throw tokenRefusal(new ConnectError(status?.message ?? 'no answer', codeOf(status?.code)))
  return {
    token: svid.token,
    expiresAt: milliseconds(svid.expiresAt),
    holder: new Uint8Array(keys.privateKey.export({ format: 'der', type: 'pkcs8' })),
  }
}

/** The code of one item of a batch; what is no code is an internal error. */
const codeOf = (code = 0): Code => (code in Code ? code : Code.Internal)
