// An authority below this one: a server that other agents talk to gets a CA certificate of its own. In the
// order of every issuance: prove, authorize, reserve, sign, read back, record, deliver.
import { createPublicKey, verify } from 'node:crypto'
import type { Clock } from '../runtime/clock.ts'
import type { Log } from '../runtime/log.ts'
import { type Certificate, parseCertificate, type Serial, serialOf } from '../spiffe/certificate.ts'
import { IdentityError } from '../spiffe/errors.ts'
import { spiffeIdOf, type TrustDomain } from '../spiffe/id.ts'
import { keyIdOf } from '../spiffe/key-id.ts'
import type { Authorities } from './authorities/authorities.ts'
import { proveCsr } from './csr.ts'
import { createSerials } from './serials.ts'
import type { EntryRow } from './store/model.ts'
import type { IssuanceTable } from './store/store.ts'

export interface DownstreamSteps {
  readonly trustDomain: TrustDomain
  readonly clock: Clock
  readonly table: Pick<IssuanceTable, 'reserve' | 'record'>
  readonly authorities: Pick<Authorities, 'active'>
  readonly log: Log
}

/** milliseconds; one that is asked for longer gets this */
export const longestDownstream = 7 * 86_400_000
const usual = 86_400_000
const shortest = 300_000
const backdate = 60_000

const nextSerial = createSerials()

interface Asked {
  readonly publicKey: Uint8Array
  readonly serial: Serial
  readonly spiffeId: string
}

/** Throws ERR_LINT when what was signed is not what was asked for: it is never recorded then. */
function readBack(certificate: Uint8Array, asked: Asked, signer: Certificate): void {
  const seen = parseCertificate(certificate)
  const [name, ...others] = seen.names
  const key = createPublicKey({
    key: Buffer.from(signer.publicKey),
    format: 'der',
    type: 'spki',
  })
  const holds =
    seen.isCa &&
    seen.pathLength === 0 &&
    seen.serial === asked.serial &&
    Buffer.compare(seen.publicKey, asked.publicKey) === 0 &&
    Buffer.compare(seen.issuer, signer.subject) === 0 &&
    name?.kind === 'uri' &&
    name.value === asked.spiffeId &&
    others.length === 0 &&
    verify('sha256', seen.tbs, key, seen.signature)
  if (!holds)
    throw new IdentityError('ERR_LINT', 'a signed CA certificate is not what was asked for')
}

export interface DownstreamAsked {
  /** by whose right */
  readonly entry: EntryRow
  /** milliseconds, 0 for a day */
  readonly wanted: number
}

/**
 * Signs for the key of `csr` by the right of `entry`, whose workload asks. Nothing else of the CSR counts. Throws ERR_CSR, ERR_PRECONDITION, ERR_UNAVAILABLE, ERR_STORE.
 */
export async function issueDownstream(
  csr: Uint8Array,
  { entry, wanted }: DownstreamAsked,
  { trustDomain, clock, table, authorities, log }: DownstreamSteps,
): Promise<Uint8Array> {
  const { publicKey } = proveCsr(csr)
  const signer = authorities.active()
  if (signer.certificate.pathLength === 0) {
    throw new IdentityError(
      'ERR_PRECONDITION',
      `authority ${signer.id} may have no authority below it; run castellan authority prepare and activate`,
    )
  }
  const now = clock.now()
  const serial = serialOf(nextSerial())
  const spiffeId = spiffeIdOf(trustDomain)
  const lifetime = Math.min(Math.max(wanted === 0 ? usual : wanted, shortest), longestDownstream)
  const notBefore = Math.max(now - backdate, signer.certificate.notBefore)
  const notAfter = Math.min(now + lifetime, signer.certificate.notAfter)
  await table.reserve({ serial, spiffeId, authorityId: signer.id, at: now })
  // loaded when needed, as for the authorities themselves
  const { createDownstream } = await import('./x509.ts')
  const certificate = await createDownstream({
    ...{ trustDomain, serial, publicKey, notBefore, notAfter },
    issuer: { material: signer.material, keyId: signer.keyId, key: signer.key },
  })
  readBack(certificate, { publicKey, serial, spiffeId }, signer.certificate)
  const requester = entry.spiffeId
  await table.record({
    ...{ serial, spiffeId, authorityId: signer.id, requester, entryId: entry.id },
    ...{ notBefore, notAfter, certificate },
  })
  const authorityId = keyIdOf(publicKey).toString('hex')
  log.warn({ audit: true, serial, requester, authorityId }, 'signed an authority below this one')
  return certificate
}
