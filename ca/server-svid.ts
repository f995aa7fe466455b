// The authority's own SVID, `spiffe://TD/spire/server`, issued by the same procedure as all others.
import { generateKeyPairSync } from 'node:crypto'
import type { Clock } from '../runtime/clock.ts'
import { sleepUntil } from '../runtime/clock.ts'
import { type Running, run } from '../runtime/lifecycle.ts'
import type { Log } from '../runtime/log.ts'
import type { ServerCredential } from '../runtime/tls-server.ts'
import { bareCsr } from '../spiffe/csr.ts'
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

/** The chain ends in the root itself, so that an agent that only knows its fingerprint can find it. */
export async function newServerSvid(authority: Authority): Promise<ServerSvid> {
  const keys = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
  const signer = authority.authorities.active()
  const svid = await authority.issue(bareCsr(keys), vouch({ kind: 'self' }), {
    kind: 'server',
  })
  const chain = [...svid.chain, signer.certificate.der]
  return {
    chain,
    key: keys.privateKey,
    notAfter: svid.notAfter,
    receivedAt: authority.clock.now(),
    authorityId: signer.id,
  }
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

/** Keeps the server's SVID fresh; `use` is told of each new one. Failures are retried within its life. */
export function renewServerSvid(
  first: ServerSvid,
  authority: Authority,
  { clock, log, use }: { clock: Clock; log: Log; use: (svid: ServerSvid) => void },
): Running {
  return run(async (signal) => {
    let svid = first
    while (!signal.aborted) {
      await untilDue(svid, authority, clock, signal)
      try {
        svid = await newServerSvid(authority)
        use(svid)
      } catch (error) {
        log.error({ err: error }, "the authority's own certificate was not renewed")
        await clock.sleep(Math.max(1000, (svid.notAfter - clock.now()) / 10), { signal })
      }
    }
  })
}
