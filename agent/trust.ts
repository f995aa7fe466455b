// What a trust domain is believed by: the roots of its certificates and the keys of its tokens, never of two.
import type { Bundle } from '../proto/gen/spire/api/types/bundle_pb.js'
import { bundleOf, type X509Bundle } from '../spiffe/bundle.ts'
import type { TokenKey } from '../spiffe/bundle-document.ts'
import type { DenyList } from '../spiffe/deny-list.ts'
import { parseTrustDomain, type TrustDomain } from '../spiffe/id.ts'
import { keyIdOf } from '../spiffe/key-id.ts'

export interface Trust {
  readonly x509: X509Bundle
  readonly jwt: readonly TokenKey[]
  readonly wit: readonly TokenKey[]
}

const keysOf = (keys: Bundle['jwtAuthorities'] | Bundle['witAuthorities']) =>
  keys.map(({ keyId, publicKey }) => ({ keyId, publicKey }))

/** Throws ERR_CERTIFICATE. */
export function trustOf(trustDomain: TrustDomain, message: Bundle): Trust {
  const roots = message.x509Authorities.map(({ asn1 }) => asn1)
  return {
    x509: bundleOf(trustDomain, roots),
    jwt: keysOf(message.jwtAuthorities),
    wit: keysOf(message.witAuthorities),
  }
}

/** Throws ERR_SPIFFE_ID or ERR_CERTIFICATE. */
export function federatedOf(bundles: readonly Bundle[]): ReadonlyMap<TrustDomain, Trust> {
  const trusts = bundles.map((it) => trustOf(parseTrustDomain(it.trustDomain), it))
  return new Map(trusts.map((trust) => [trust.x509.trustDomain, trust]))
}

export interface Undenied {
  readonly bundle: X509Bundle
  /** milliseconds since the epoch: a rule against one of its roots ends then */
  readonly until?: number | undefined
}

/** A bundle without its roots that are denied: for programs that look at no deny-list. */
export function withoutDenied(bundle: X509Bundle, denyList: DenyList, now: number): Undenied {
  const { authorities } = bundle
  const rules = authorities.map(({ publicKey }) =>
    denyList.againstAuthority(keyIdOf(publicKey).toString('hex'), now),
  )
  const held = rules.filter((it) => it !== undefined)
  if (held.length === 0) return { bundle }
  const ends = held.flatMap(({ expiresAt }) => (expiresAt === 0 ? [] : [expiresAt]))
  return {
    bundle: { ...bundle, authorities: authorities.filter((_, i) => rules[i] === undefined) },
    until: ends.length === 0 ? undefined : Math.min(...ends),
  }
}

const nameKey = (subject: Uint8Array) => Buffer.from(subject).toString('base64')

/** Since when authorities are tainted, as this agent heard of it: by their name, or by their key's id. */
export interface Taints {
  /** milliseconds since the epoch; `subject` is an encoded name */
  ofAuthority(subject: Uint8Array): number | undefined
  ofKey(keyId: string): number | undefined
}

export interface KnownTaints extends Taints {
  /** Those of `message`; what was known before keeps its time. */
  next(trust: Trust, message: Bundle, now: number): KnownTaints
}

function taints(known: ReadonlyMap<string, number>): KnownTaints {
  return {
    ofAuthority: (subject) => known.get(nameKey(subject)),
    ofKey: (keyId) => known.get(`key ${keyId}`),
    next({ x509 }, message, now) {
      const names = x509.authorities.flatMap(({ subject }, i) =>
        message.x509Authorities[i]?.tainted === true ? [nameKey(subject)] : [],
      )
      const keys = [...message.jwtAuthorities, ...message.witAuthorities].flatMap((it) =>
        it.tainted ? [`key ${it.keyId}`] : [],
      )
      return taints(new Map([...names, ...keys].map((name) => [name, known.get(name) ?? now])))
    },
  }
}

export const noTaints = taints(new Map())
