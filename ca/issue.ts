// How a certificate is born. Seven steps, each a function whose result is the only thing that the next
// one takes; the tokens between them can be made nowhere else and be used once (design.md §3).
import { type KeyObject, sign as signBytes } from 'node:crypto'
import type { Clock } from '../runtime/clock.ts'
import { type Serial, serialOf } from '../spiffe/certificate.ts'
import { IdentityError } from '../spiffe/errors.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import { keyIdOf } from '../spiffe/key-id.ts'
import { type Attested, checkVouched } from './attestors/attestor.ts'
import type { Authority } from './authorities/authorities.ts'
import type { Signing } from './authorities/slot.ts'
import { type ProvenCsr, proveCsr, spendProof } from './csr.ts'
import { lintLeaf } from './lint.ts'
import { createMint, type Minted } from './mint.ts'
import { type LeafFields, leafTbs, wrapSigned } from './profile.ts'
import { readBack } from './read-back.ts'
import { createSerials } from './serials.ts'
import type { AgentChange, TokenUse } from './store/model.ts'
import type { IssuanceTable } from './store/store.ts'

/** What authorization decided; how the words of the grant become bytes is the profile's business. */
export interface GrantTerms {
  readonly spiffeId: SpiffeId
  readonly dnsNames: readonly string[]
  /** milliseconds; clamped to the signer's life and the configured cap */
  readonly lifetime: number
  readonly entryId: string
  readonly requester: string
  /** used up together with the reservation */
  readonly token?: TokenUse
  /** written together with the certificate's record */
  readonly change?: (issued: { serial: Serial; notAfter: number }) => AgentChange
}

interface GrantBody {
  readonly terms: GrantTerms
  readonly publicKey: Uint8Array
}

interface ReservedBody {
  readonly terms: GrantTerms
  readonly fields: LeafFields
  readonly serial: Serial
  readonly authorityId: string
  readonly key: KeyObject
}

interface IssuedBody extends ReservedBody {
  readonly certificate: Uint8Array
}

export type Grant = Minted<'grant', GrantBody>
export type Reserved = Minted<'reservation', ReservedBody>
export type Issued = Minted<'issued certificate', IssuedBody>
export type Recorded = Minted<'recorded certificate', IssuedBody>

const grants = createMint<'grant', GrantBody>('grant')
const reservations = createMint<'reservation', ReservedBody>('reservation')
const signatures = createMint<'issued certificate', IssuedBody>('issued certificate')
const records = createMint<'recorded certificate', IssuedBody>('recorded certificate')

const nextSerial = createSerials()

/** What leaves the process. */
export interface Delivered {
  readonly spiffeId: SpiffeId
  readonly serial: Serial
  /** milliseconds since the epoch */
  readonly notAfter: number
  /** DER, leaf first; our authorities are in the bundle and sign leaves directly */
  readonly chain: readonly [Uint8Array]
}

export type StepDone = 'proven' | 'authorized' | 'reserved' | 'signed' | 'recorded'

export interface IssueSteps {
  readonly clock: Clock
  readonly table: IssuanceTable
  readonly signer: () => Signing<Authority>
  /** May `attested` have what is asked for? Throws ERR_DENIED; never looks at the CSR. */
  readonly decide: (attested: Attested) => GrantTerms
  /** Throws ERR_DENIED when the identity was denied while its certificate was made. */
  readonly stillAllowed?: (id: SpiffeId) => void
  /** Told of each certificate once it is recorded. */
  readonly audit: (issued: Delivered & { requester: string; entryId: string }) => void
  /** Told of each step once it is done, for who measures. */
  readonly mark?: ((step: StepDone) => void) | undefined
  /** Where a test or a crash harness may stop between two steps. */
  readonly between?: (step: 'reserved' | 'signed' | 'recorded') => Promise<void> | void
}

/** How far before now a leaf is valid: 60 s, less for one that lives shorter than ten minutes. */
function backdateOf(lifetime: number): number {
  return Math.min(60_000, lifetime / 10)
}

// 3 authorize
function authorize(csr: ProvenCsr, attested: Attested, decide: IssueSteps['decide']): Grant {
  checkVouched(attested)
  const terms = decide(attested)
  spendProof(csr)
  return grants.mint({ terms, publicKey: csr.publicKey })
}

// 4 reserve: serial and intent are durable before the key is touched
async function reserve(grant: Grant, { clock, table, signer }: IssueSteps): Promise<Reserved> {
  grants.spend(grant)
  const { terms, publicKey } = grant
  const authority = signer()
  const now = clock.now()
  const random = nextSerial()
  const serial = serialOf(random)
  const fields: LeafFields = {
    serial: random,
    issuer: authority.certificate.subject,
    authorityKeyId: authority.keyId,
    subjectKeyId: keyIdOf(publicKey),
    spiffeId: terms.spiffeId,
    dnsNames: terms.dnsNames,
    notBefore: Math.max(now - backdateOf(terms.lifetime), authority.certificate.notBefore),
    notAfter: Math.min(now + terms.lifetime, authority.certificate.notAfter),
    publicKey,
  }
  const intent = { serial, spiffeId: terms.spiffeId, authorityId: authority.id, at: now }
  await table.reserve(intent, terms.token)
  return reservations.mint({ terms, fields, serial, authorityId: authority.id, key: authority.key })
}

// 5 sign: the linter reads what will be signed, an independent reader what was
function sign(reserved: Reserved): Issued {
  reservations.spend(reserved)
  const { fields, key, terms } = reserved
  const tbs = leafTbs(fields)
  lintLeaf(tbs, fields)
  const certificate = wrapSigned(tbs, signBytes('sha256', tbs, key))
  const seen = readBack(certificate)
  const isAsGranted =
    seen.uris.length === 1 &&
    seen.uris[0] === terms.spiffeId &&
    seen.serial === reserved.serial &&
    seen.notAfter === Math.floor(fields.notAfter / 1000) * 1000 &&
    Buffer.compare(seen.tbs, tbs) === 0
  if (!isAsGranted) {
    throw new IdentityError(
      'ERR_LINT',
      `a signed leaf for ${terms.spiffeId} does not read back as granted`,
    )
  }
  return signatures.mint({ ...reserved, certificate })
}

// 6 record
async function record(issued: Issued, { table }: IssueSteps): Promise<Recorded> {
  signatures.spend(issued)
  const { terms, fields, serial, authorityId, certificate } = issued
  const { spiffeId, requester, entryId } = terms
  const { notBefore, notAfter } = fields
  await table.record(
    { serial, spiffeId, authorityId, requester, entryId, notBefore, notAfter, certificate },
    terms.change?.({ serial, notAfter }),
  )
  return records.mint(issued)
}

// 7 deliver: nothing that is not recorded gets this far
function deliver(recorded: Recorded, { audit }: IssueSteps): Delivered {
  records.spend(recorded)
  const { terms, fields, serial, certificate } = recorded
  const delivered: Delivered = {
    spiffeId: terms.spiffeId,
    serial,
    notAfter: Math.floor(fields.notAfter / 1000) * 1000,
    chain: [certificate],
  }
  audit({ ...delivered, requester: terms.requester, entryId: terms.entryId })
  return delivered
}

/**
 * Issues one leaf: `csr` is PKCS#10 DER, `attested` says who asks. Throws ERR_CSR, ERR_DENIED,
 * ERR_JOIN_TOKEN, ERR_UNAVAILABLE, ERR_STORE; after any of them nothing was delivered, and a join token
 * that was reserved is good again.
 */
export async function issue(
  csr: Uint8Array,
  attested: Attested,
  steps: IssueSteps,
): Promise<Delivered> {
  // 1 prove: the CSR's signer holds the key
  const { between, mark } = steps
  const proven = proveCsr(csr)
  mark?.('proven')
  // 2 attest happened before, in `ca/attestors`: its result is a token, too
  // 3 authorize
  const grant = authorize(proven, attested, steps.decide)
  const { token } = grant.terms
  mark?.('authorized')
  // 4 reserve
  const reserved = await reserve(grant, steps)
  mark?.('reserved')
  try {
    if (between !== undefined) await between('reserved')
    // 5 sign
    const issued = sign(reserved)
    mark?.('signed')
    if (between !== undefined) await between('signed')
    // 6 record
    const recorded = await record(issued, steps)
    mark?.('recorded')
    if (between !== undefined) await between('recorded')
    // 7 deliver
    steps.stillAllowed?.(recorded.terms.spiffeId)
    return deliver(recorded, steps)
  } catch (error) {
    // a release that fails is tried again, or made good by the next start
    if (token !== undefined) await steps.table.release(token.hash).catch(() => {})
    throw error
  }
}
