// The authority's own SVID, `spiffe://TD/spire/server`, issued by the same procedure as all others: by this
// authority, or by another replica on the same store as long as this one may not sign.
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { type Clock, sleepUntil } from '../runtime/clock.ts'
import { createLatest, type Running, run } from '../runtime/lifecycle.ts'
import type { Log } from '../runtime/log.ts'
import type { ServerCredential } from '../runtime/tls-server.ts'
import { parseCertificate } from '../spiffe/certificate.ts'
import { bareCsr } from '../spiffe/csr.ts'
import { IdentityError } from '../spiffe/errors.ts'
import { keyIdOf } from '../spiffe/key-id.ts'
import { renewalPoint } from '../spiffe/renewal.ts'
import { vouch } from './attestors/attestor.ts'
import type { Authority } from './authority.ts'

export interface ServerSvid extends ServerCredential {
  /** milliseconds since the epoch */
  readonly notAfter: number
  readonly receivedAt: number
  /** the authority that signed it */
  readonly authorityId: string
}

/** milliseconds that another replica has to answer */
const answerPatience = 5000
/** before it is asked again */
const pause = 1000

/** The chain ends in the root itself, so that an agent that only knows its fingerprint can find it. */
async function signedHere(csr: Uint8Array, authority: Authority): Promise<readonly Uint8Array[]> {
  const signer = authority.authorities.active()
  const svid = await authority.issue(csr, vouch({ kind: 'self' }), { kind: 'server' })
  return [...svid.chain, signer.certificate.der]
}

/** Throws ERR_UNAVAILABLE when none answers. */
async function signedElsewhere(
  csr: Uint8Array,
  { store, clock }: Authority,
): Promise<readonly Uint8Array[]> {
  const answer = Promise.withResolvers<readonly Uint8Array[]>()
  using _ = store.events.subscribe(async (events) => {
    if (!events.some(({ kind, key }) => kind === 'replica' && key === store.replica)) return
    const chain = await store.replicas.answered()
    if (chain !== undefined) answer.resolve(chain)
  })
  await store.replicas.askForSvid(csr)
  const end = new AbortController()
  const late = clock.sleep(answerPatience, { signal: end.signal }).then(() => {
    throw new IdentityError(
      'ERR_UNAVAILABLE',
      'this authority may not sign yet and no other replica on its store answers',
    )
  })
  try {
    return await Promise.race([answer.promise, late])
  } finally {
    end.abort()
  }
}

function credentialOf(
  chain: readonly Uint8Array[],
  key: KeyObject,
  receivedAt: number,
): ServerSvid {
  const leaf = parseCertificate(chain[0] ?? new Uint8Array())
  const root = parseCertificate(chain.at(-1) ?? new Uint8Array())
  const authorityId = keyIdOf(root.publicKey).toString('hex')
  return { chain, key, notAfter: leaf.notAfter, receivedAt, authorityId }
}

export async function newServerSvid(authority: Authority): Promise<ServerSvid> {
  const keys = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
  const csr = bareCsr(keys)
  const { clock, store } = authority
  const chain =
    store.isShared && !isActive(authority)
      ? await signedElsewhere(csr, authority)
      : await signedHere(csr, authority)
  return credentialOf(chain, keys.privateKey, clock.now())
}

const isActive = ({ authorities }: Authority) =>
  authorities.own().some(({ state }) => state === 'active')

/** The same, tried until it succeeds: another replica may start later, or an operator activate this one. */
export async function firstServerSvid(
  authority: Authority,
  log: Log,
  signal: AbortSignal,
): Promise<ServerSvid> {
  for (;;) {
    try {
      return await newServerSvid(authority)
    } catch (error) {
      if (!authority.store.isShared || isActive(authority)) throw error
      log.warn({ err: error }, 'waiting for a certificate of its own; not ready')
      await authority.clock.sleep(pause, { signal })
    }
  }
}

/** Signs what other replicas ask for while this one may sign and they may not. */
export function serveReplicas(authority: Authority, log: Log): Running {
  const { store } = authority
  return run(async (signal) => {
    using wake = createLatest<true>(signal)
    using _ = store.events.subscribe(async (events) => {
      if (events.some(({ kind }) => kind === 'replica')) wake.push(true)
    })
    using __ = authority.authorities.onChange(() => wake.push(true))
    wake.push(true)
    for await (const ___ of wake) {
      if (!isActive(authority)) continue
      try {
        for (const { replica, csr } of await store.replicas.asked()) {
          if (replica === store.replica) continue
          await store.replicas.answer(replica, csr, await signedHere(csr, authority))
          log.info({ audit: true, replica }, 'signed the certificate of another replica')
        }
      } catch (error) {
        log.error({ err: error }, 'the certificate of another replica was not signed')
      }
    }
  })
}

/** Its renewal point, or that another authority signs: the old one may be revoked. */
async function untilDue(
  svid: ServerSvid,
  { authorities }: Authority,
  clock: Clock,
  signal: AbortSignal,
): Promise<void> {
  const changed = new AbortController()
  const isOld = () =>
    authorities.all().some((it) => it.id === svid.authorityId && it.state === 'old')
  using _ = authorities.onChange(() => {
    if (isOld()) changed.abort()
  })
  if (isOld()) return
  const [leaf = new Uint8Array()] = svid.chain
  const point = renewalPoint(leaf, svid.receivedAt, svid.notAfter)
  const either = AbortSignal.any([signal, changed.signal])
  await sleepUntil(clock, point, { signal: either }).catch((error: unknown) => {
    if (signal.aborted) throw error
  })
}

/** Keeps the server's SVID fresh; `use` is told of each new one, and of failures, which are retried within its life. */
export function renewServerSvid(
  first: ServerSvid,
  authority: Authority,
  { clock, log, use }: { clock: Clock; log: Log; use: (svid: ServerSvid | undefined) => void },
): Running {
  return run(async (signal) => {
    let svid = first
    while (!signal.aborted) {
      await untilDue(svid, authority, clock, signal)
      try {
        svid = await newServerSvid(authority)
        use(svid)
      } catch (error) {
        use(undefined)
        log.error({ err: error }, "the authority's own certificate was not renewed")
        await clock.sleep(Math.max(1000, (svid.notAfter - clock.now()) / 10), { signal })
      }
    }
  })
}
