// Who asks for something, as a proxy says: by the certificate that the proxy has seen, verified here anew, for
// proxies check less of it than an identity needs (proxies.md §9.3).
import { createVerifier, type VerifiedPeer, type Verify } from '../../decisions/verifier.ts'
import type { Clock } from '../../runtime/clock.ts'
import type { BundleSource } from '../../spiffe/bundle.ts'
import { describeRule } from '../../spiffe/deny-list.ts'
import { explain, IdentityError } from '../../spiffe/errors.ts'
import type { SpiffeId, TrustDomain } from '../../spiffe/id.ts'
import { parsePem } from '../../spiffe/pem.ts'
import type { Knowledge } from '../knowledge.ts'
import type { SvidCache } from '../svid-cache.ts'

export interface PeersOptions {
  readonly knowledge: Pick<Knowledge, 'own' | 'federated' | 'revocation'>
  readonly cache: Pick<SvidCache, 'svids' | 'onChange'>
  readonly clock: Clock
}

/**
 * The identity of a certificate (PEM, URL-encoded; its issuers may follow) whose trust domain is the own one or
 * among `federatesWith`. Throws ERR_UNTRUSTED.
 */
export type VerifyPeer = (
  certificate: string,
  federatesWith: readonly TrustDomain[],
  issuers?: Issuers,
) => SpiffeId

/** More certificates that the proxy knows of (PEM, URL-encoded): asked for where the others lead to no root. */
export type Issuers = () => string

const longest = 64 * 1024
/** certificates between leaf and root, as many as a path may have */
const mostIntermediates = 8
const mostRemembered = 4096
const mostViews = 256
const nobodyElse: Issuers = () => ''

function refuse(why: string): never {
  throw new IdentityError('ERR_UNTRUSTED', why)
}

function chainOf(certificate: string): readonly Uint8Array[] {
  if (certificate.length > longest) return refuse('a certificate that is too long')
  try {
    return parsePem(decodeURIComponent(certificate), 'CERTIFICATE', 'the certificate of the peer')
  } catch (error) {
    return refuse(`unreadable certificate: ${explain(error)}`)
  }
}

/** Issuers of the SVIDs on this node: proxies send the leaf alone, and its issuer is most often one of them. */
function followIntermediates({ svids, onChange }: PeersOptions['cache']) {
  let known = new Map<string, Uint8Array>()
  let all: readonly Uint8Array[] = []

  function look(entryIds: Iterable<string>): void {
    const before = known.size
    for (const id of entryIds) {
      for (const der of svids.get(id)?.certificates.slice(1) ?? [])
        known.set(Buffer.from(der).toString('base64'), der)
    }
    if (known.size === before) return
    known = new Map([...known].slice(-mostIntermediates))
    all = [...known.values()]
  }

  look(svids.keys())
  const subscription = onChange(look)
  return { all: () => all, [Symbol.dispose]: () => subscription[Symbol.dispose]() }
}

/** What verifies for one set of trust domains, with what it has verified. */
interface View {
  readonly verify: Verify
  readonly known: Map<string, VerifiedPeer>
}

export function createPeers(options: PeersOptions): { readonly verify: VerifyPeer } & Disposable {
  const { knowledge, cache, clock } = options
  const intermediates = followIntermediates(cache)
  let views = new Map<string, View>()
  let state: readonly unknown[] = []

  /** Another state of the bundles has nothing in common with the one before. */
  function forgetOld(): void {
    const now = [knowledge.own(), knowledge.federated(), intermediates.all()]
    if (now.every((it, i) => it === state[i])) return
    state = now
    views = new Map()
  }

  function viewOf(federatesWith: readonly TrustDomain[]): View {
    forgetOld()
    const key = federatesWith.join(' ')
    const known = views.get(key)
    if (known !== undefined) return known
    const own = knowledge.own().x509
    const others = knowledge.federated()
    const bundles: BundleSource = (name) => {
      if (name === own.trustDomain) return own
      return federatesWith.includes(name) ? others.get(name)?.x509 : undefined
    }
    const made = { verify: createVerifier(bundles, clock), known: new Map() }
    if (views.size >= mostViews) views.clear()
    views.set(key, made)
    return made
  }

  /** What a proxy says to be between leaf and root is only tried: the leaf has to be signed by it. */
  function verifyWith(
    chain: readonly Uint8Array[],
    verify: Verify,
    issuers: Issuers,
  ): VerifiedPeer {
    const room = Math.max(0, mostIntermediates + 1 - chain.length)
    try {
      return verify([...chain, ...intermediates.all().slice(0, room)])
    } catch (error) {
      const more = issuers()
      if (more === '') throw error
      return verify([...chain, ...chainOf(more).slice(1, room + 1)])
    }
  }

  function verified(certificate: string, { verify, known }: View, issuers: Issuers): VerifiedPeer {
    const kept = known.get(certificate)
    if (kept !== undefined && clock.now() < kept.until) return kept
    const peer = verifyWith(chainOf(certificate), verify, issuers)
    if (known.size >= mostRemembered) known.clear()
    known.set(certificate, peer)
    return peer
  }

  return {
    verify(certificate, federatesWith, issuers = nobodyElse) {
      const peer = verified(certificate, viewOf(federatesWith), issuers)
      const rule = knowledge.revocation().denyList.against(peer, clock.now())
      if (rule !== undefined) refuse(describeRule(rule))
      return peer.id
    },
    [Symbol.dispose]: intermediates[Symbol.dispose],
  }
}
