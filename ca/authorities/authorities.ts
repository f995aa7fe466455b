// All that the authority signs with: X.509 authorities, keys for JWT-SVIDs, keys for WIT-SVIDs. Each kind
// rotates by itself; together they are the trust bundle.
import { createHash, createPublicKey, generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import type { Clock } from '../../runtime/clock.ts'
import { bundleOf, type X509Bundle } from '../../spiffe/bundle.ts'
import { type Certificate, parseCertificate } from '../../spiffe/certificate.ts'
import { spiffeIdOf, type TrustDomain } from '../../spiffe/id.ts'
import { keyIdOf } from '../../spiffe/key-id.ts'
import { leafTbs, wrapSigned } from '../profile.ts'
import { createSerials } from '../serials.ts'
import type { AuthorityKind } from '../store/model.ts'
import type { Store } from '../store/store.ts'
import type { KeyKeeper } from './keys.ts'
import type { Made, Signing, Slot, Slots } from './slot.ts'
import { openSlots } from './slots.ts'

/** An X.509 authority. */
export interface Authority extends Slot {
  readonly keyId: Uint8Array
  readonly certificate: Certificate
}

export type TokenKind = Exclude<AuthorityKind, 'x509'>

export interface Authorities extends Slots<Authority>, Disposable {
  readonly jwt: Slots<Slot>
  readonly wit: Slots<Slot>
  /** the X.509 authorities that are trusted, in the order in which they were prepared */
  bundle(): X509Bundle
}

export interface AuthoritiesOptions {
  readonly trustDomain: TrustDomain
  readonly store: Pick<Store, 'authorities' | 'events' | 'replica'>
  readonly keys: (kind: AuthorityKind) => KeyKeeper
  readonly clock: Clock
  /** milliseconds that a new authority lives, of any kind */
  readonly lifetime: number
  /** Whether the agents have what was published up to this sequence; true when left out. */
  readonly isKnown?: (sequence: number) => Promise<boolean>
}

const nextSerial = createSerials()
const backdate = 60_000
/** keys of one kind in the JWK Set */
const mostTokenKeys = 3
/** a backstop: a bundle has to stay readable */
const mostAuthorities = 8

/** A leaf by which agents rehearse what they will be asked to believe; nobody keeps its key. */
function canaryOf(trustDomain: TrustDomain, issuer: Certificate, key: KeyObject): Uint8Array {
  const keys = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
  const publicKey = keys.publicKey.export({ format: 'der', type: 'spki' })
  const tbs = leafTbs({
    serial: nextSerial(),
    issuer: issuer.subject,
    authorityKeyId: keyIdOf(issuer.publicKey),
    subjectKeyId: keyIdOf(publicKey),
    spiffeId: spiffeIdOf(trustDomain, '/spire/canary'),
    dnsNames: [],
    notBefore: issuer.notBefore,
    notAfter: issuer.notAfter,
    publicKey,
  })
  return wrapSigned(tbs, sign('sha256', tbs, key))
}

async function makeX509(
  trustDomain: TrustDomain,
  notBefore: number,
  notAfter: number,
): Promise<Made> {
  // loaded when needed: @peculiar/x509 would be a third of the time that a start takes
  const { createAuthority } = await import('../x509.ts')
  const { certificate: material, key } = await createAuthority({ trustDomain, notBefore, notAfter })
  const parsed = parseCertificate(material)
  const id = keyIdOf(parsed.publicKey).toString('hex')
  const canary = canaryOf(trustDomain, parsed, key)
  return { id, key, material, canary, notBefore: parsed.notBefore, notAfter: parsed.notAfter }
}

/** The `kid` is of the key alone: distinct for each key pair (WIT-SVID §2.1, WT-1, WT-19). */
function makeToken(notBefore: number, notAfter: number): Made {
  const { privateKey: key } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
  const material = createPublicKey(key).export({ format: 'der', type: 'spki' })
  const id = createHash('sha256').update(material).digest('hex').slice(0, 32)
  return { id, key, material, canary: new Uint8Array(), notBefore, notAfter }
}

function authorityOf(slot: Slot): Authority {
  const certificate = parseCertificate(slot.material)
  return { ...slot, certificate, keyId: keyIdOf(certificate.publicKey) }
}

/** A new self-signed authority that signs at once and is in no store. */
export async function lonelyAuthority(
  trustDomain: TrustDomain,
  notBefore: number,
  notAfter: number,
): Promise<Signing<Authority>> {
  const made = await makeX509(trustDomain, notBefore, notAfter)
  const place = {
    kind: 'x509',
    state: 'active',
    isTainted: false,
    taintedAt: 0,
    preparedAt: notBefore,
    replica: '',
  } as const
  return { ...authorityOf({ ...made, ...place }), key: made.key }
}

/** Loads the authorities of the store; makes and activates the first of a kind when there is none. */
export async function openAuthorities(options: AuthoritiesOptions): Promise<Authorities> {
  const { trustDomain, store, keys, clock, lifetime, isKnown = async () => true } = options
  using opening = new DisposableStack()
  const sequence = (): number => Math.max(x509.sequence, jwt.sequence, wit.sequence)
  const shared = { table: store.authorities, clock, isKnown: () => isKnown(sequence()) }
  const tokens = async (kind: TokenKind) =>
    opening.use(
      await openSlots<Slot>(
        {
          ...{ ...shared, kind, replica: '', keys: keys(kind) },
          make: (now) => makeToken(now - backdate, now + lifetime),
          load: (slot) => slot,
          most: mostTokenKeys,
        },
        store.events,
      ),
    )
  // these first: whoever has another secret than the other replicas leaves nothing in the store
  const jwt: Slots<Slot> = await tokens('jwt')
  const wit: Slots<Slot> = await tokens('wit')
  const x509: Slots<Authority> & Disposable = opening.use(
    await openSlots<Authority>(
      {
        ...{ ...shared, kind: 'x509', replica: store.replica, keys: keys('x509') },
        make: (now) => makeX509(trustDomain, now - backdate, now + lifetime),
        load: authorityOf,
        most: mostAuthorities,
      },
      store.events,
    ),
  )
  const bundleNow = (of: readonly Authority[]) => ({
    of,
    value: bundleOf(
      trustDomain,
      of.map(({ material }) => material),
    ),
  })
  let bundle = bundleNow(x509.all())
  const opened = opening.move()

  return {
    ...x509,
    jwt,
    wit,
    get sequence() {
      return sequence()
    },
    get publishedAt() {
      return Math.max(x509.publishedAt, jwt.publishedAt, wit.publishedAt)
    },
    bundle() {
      if (bundle.of !== x509.all()) bundle = bundleNow(x509.all())
      return bundle.value
    },
    [Symbol.dispose]: () => opened[Symbol.dispose](),
  }
}
