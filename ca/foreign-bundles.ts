// The bundle of another trust domain, from its endpoint into the store (SPIFFE Federation §4 and §5). Whose
// bundle it is and who serves it are said by the relationship, never by the document or the URL.
import type { Clock } from '../runtime/clock.ts'
import { fetchBounded } from '../runtime/fetch.ts'
import { createTurns } from '../runtime/lifecycle.ts'
import type { Log } from '../runtime/log.ts'
import { bundleOf, bundleSourceOf, bundleToPem, type X509Bundle } from '../spiffe/bundle.ts'
import {
  type BundleDocument,
  parseBundleDocument,
  type TokenKey,
} from '../spiffe/bundle-document.ts'
import { explain, IdentityError } from '../spiffe/errors.ts'
import { type SpiffeId, type TrustDomain, trustDomainOf } from '../spiffe/id.ts'
import { matchId } from '../spiffe/match.ts'
import { verifySvid } from '../spiffe/svid.ts'
import type { FederatedBundleRow, RelationshipRow, TokenKeyRow } from './store/model.ts'
import type { FederationTable } from './store/store.ts'

export interface ForeignBundles {
  /**
   * Fetches the bundle of a stored relationship and writes it if it is another one; resolves with it.
   * Throws ERR_UNAVAILABLE when it cannot be fetched, ERR_PRECONDITION when it is not taken; the stored one
   * stays.
   */
  refresh(
    relationship: RelationshipRow,
    options: { readonly signal: AbortSignal },
  ): Promise<FederatedBundleRow>
}

export interface ForeignBundlesOptions {
  /** our own bundle, for endpoints that one of ours serves */
  readonly own: () => X509Bundle
  readonly federation: Pick<FederationTable, 'bundle' | 'relationship' | 'setBundle'>
  readonly clock: Pick<Clock, 'now'>
  readonly log: Log
  /** of https_web endpoints */
  readonly web: {
    /** PEM of who may vouch for them; the public roots when left out */
    readonly roots?: string | undefined
    readonly privateAddresses: boolean
  }
}

const limits = { timeout: 10_000, most: 1 << 20 } as const
const remedy = 'federation: { privateAddresses: true } in ca.yaml'

const utf8 = new TextDecoder('utf-8', { fatal: true })

function refuse(trustDomain: TrustDomain, problem: string, cause?: unknown): never {
  const message = `the bundle of ${trustDomain} is not taken: ${problem}`
  throw new IdentityError('ERR_PRECONDITION', message, { cause })
}

const keyRow = ({ keyId, publicKey }: TokenKey): TokenKeyRow => ({
  ...{ keyId, publicKey },
  ...{ expiresAt: 0, tainted: false },
})

function rowOf(trustDomain: TrustDomain, document: BundleDocument): FederatedBundleRow {
  const { x509, jwt, wit, refreshHint = 0, sequence = 0n } = document
  return {
    trustDomain,
    x509: x509.map((der) => ({ der, tainted: false })),
    jwt: jwt.map(keyRow),
    wit: wit.map(keyRow),
    // documents have 64 bits without a sign for it, SPIRE's messages have 63
    refreshHint: Math.min(refreshHint, Number.MAX_SAFE_INTEGER),
    sequence: String(sequence),
  }
}

/** The same for the same bundle: SPIRE's endpoints give the keys in another order each time. */
function contentOf({ x509, jwt, wit, refreshHint, sequence }: FederatedBundleRow): string {
  const text = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64')
  const keys = (all: readonly TokenKeyRow[]) =>
    all.map((it) => [it.keyId, text(it.publicKey), it.expiresAt, it.tainted].join()).sort()
  const certificates = x509.map(({ der, tainted }) => `${text(der)},${tainted}`).sort()
  return JSON.stringify([certificates, keys(jwt), keys(wit), refreshHint, sequence])
}

/** Two relationships that differ in nothing have the same. */
export function relationshipKey({ trustDomain, url, endpointId }: RelationshipRow): string {
  return JSON.stringify([trustDomain, url, endpointId])
}

function parsed(body: Uint8Array, { trustDomain, url }: RelationshipRow): BundleDocument {
  try {
    return parseBundleDocument(utf8.decode(body), url)
  } catch (cause) {
    return refuse(trustDomain, explain(cause), cause)
  }
}

export function createForeignBundles(options: ForeignBundlesOptions): ForeignBundles {
  const { own, federation, clock, log, web } = options
  const inTurn = createTurns()

  /** The roots for an endpoint: those of its own trust domain, as they are stored by now (§5.2.2.4). */
  async function endpointBundle(endpointId: SpiffeId): Promise<X509Bundle> {
    const trustDomain = trustDomainOf(endpointId)
    if (trustDomain === own().trustDomain) return own()
    const stored = await federation.bundle(trustDomain)
    // none at all would make OpenSSL fall back to the public roots
    if (stored !== undefined && stored.x509.length > 0)
      return bundleOf(
        trustDomain,
        stored.x509.map(({ der }) => der),
      )
    const message = `no X.509 authority of ${trustDomain} is known, which has to vouch for ${endpointId}; set it: castellan bundle set ${trustDomain}`
    throw new IdentityError('ERR_PRECONDITION', message)
  }

  /** Who has to answer, by the profile of the relationship. */
  async function endpointOf({ endpointId }: RelationshipRow) {
    if (endpointId === undefined)
      return { roots: web.roots, privateAddress: web.privateAddresses, remedy }
    const bundle = await endpointBundle(endpointId)
    const match = matchId(endpointId)
    const bundles = bundleSourceOf(bundle)
    return {
      roots: bundleToPem(bundle),
      // it proves who it is, wherever it stands
      privateAddress: true,
      verifyServer: (chain: readonly Uint8Array[]) =>
        void verifySvid(chain, bundles, { now: clock.now(), match }),
    }
  }

  /** What is stored after `document` was compared with what is there now. */
  async function take(
    relationship: RelationshipRow,
    document: BundleDocument,
  ): Promise<FederatedBundleRow> {
    const { trustDomain, url } = relationship
    const current = await federation.relationship(trustDomain)
    if (current === undefined || relationshipKey(current) !== relationshipKey(relationship))
      return refuse(trustDomain, 'the relationship was changed while it was fetched')
    const { x509, jwt, wit, sequence } = document
    if (x509.length + jwt.length + wit.length === 0)
      return refuse(trustDomain, `${url} holds no authority`)
    const stored = await federation.bundle(trustDomain)
    if (stored !== undefined && sequence !== undefined && sequence < BigInt(stored.sequence)) {
      const problem = `its sequence ${sequence} is before ${stored.sequence}, which is stored; if it began anew, set it: castellan bundle set ${trustDomain}`
      return refuse(trustDomain, problem)
    }
    const row = rowOf(trustDomain, document)
    if (stored !== undefined && contentOf(stored) === contentOf(row)) return stored
    await federation.setBundle(row, 'any')
    const counts = { x509: x509.length, jwt: jwt.length, wit: wit.length }
    const from = { url, endpointId: relationship.endpointId, sequence: row.sequence }
    log.info({ trustDomain, ...from, ...counts }, 'another bundle of another trust domain')
    return row
  }

  return {
    async refresh(relationship, { signal }) {
      const { trustDomain, url, endpointId } = relationship
      const endpoint = await endpointOf(relationship)
      const body = await fetchBounded(url, { ...endpoint, ...limits, signal })
      const document = parsed(body, relationship)
      const sequence = document.sequence?.toString()
      // §7.6: from these lines the chain of trust can be told
      log.debug({ trustDomain, url, endpointId, sequence }, 'fetched a bundle')
      return inTurn(() => take(relationship, document))
    },
  }
}
