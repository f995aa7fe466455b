// The part of spire.api.server.bundle.v1.Bundle that publishes what others sign with: an operator's, or an
// authority's below this one.
import type { Bundle } from '../../proto/gen/spire/api/server/bundle/v1/bundle_pb.js'
import type { JWTKey, WITKey, X509Certificate } from '../../proto/gen/spire/api/types/bundle_pb.js'
import type { Implementation } from '../../runtime/grpc/service.ts'
import type { Log } from '../../runtime/log.ts'
import { parseCertificate } from '../../spiffe/certificate.ts'
import type { SpiffeId, TrustDomain } from '../../spiffe/id.ts'
import { keyIdOf } from '../../spiffe/key-id.ts'
import type { Foreign } from '../authorities/slot.ts'
import type { Authority } from '../authority.ts'
import { nameOf, type Peer } from '../callers.ts'
import { authorityFromWire, maskedBundle, tokenKeyFromWire } from '../federation.ts'
import { badRequest, bundleToWire, tokenKeyToWire } from '../wire.ts'

function adoptedKey(key: JWTKey | WITKey | undefined, field: string, replica: string): Foreign {
  if (key === undefined) return badRequest([{ field, problem: 'is missing' }])
  const { keyId: id, publicKey: material, expiresAt } = tokenKeyFromWire(key, field)
  if (expiresAt < 0 || expiresAt > latest)
    badRequest([{ field: `${field}.expires_at`, problem: 'is not 0, or before the year 9999' }])
  return { id, material, notBefore: 0, notAfter: expiresAt * 1000, replica }
}

function adoptedAuthority({ asn1 }: X509Certificate, field: string, own: TrustDomain): Foreign {
  const material = authorityFromWire(asn1, `${field}.asn1`)
  const { publicKey, notBefore, notAfter, names } = parseCertificate(material)
  const uris = names.flatMap((name) => (name.kind === 'uri' ? [name.value] : []))
  if (uris.length > 0 && uris.join() !== `spiffe://${own}`)
    badRequest([
      { field: `${field}.asn1`, problem: `is of ${uris.join()}, not of spiffe://${own}` },
    ])
  const id = keyIdOf(publicKey).toString('hex')
  return { id, material, notBefore, notAfter, replica: appended }
}

/** seconds since the epoch */
const latest = 253_402_300_799
/** whose keys these are, beside replicas: an administrator's, or those of a downstream authority */
const appended = '(appended)'
const downstreamOf = (id: SpiffeId) => `(downstream) ${id}`

type Adopting = Pick<
  Implementation<typeof Bundle, Peer>,
  'appendBundle' | 'publishJWTAuthority' | 'publishWITAuthority'
>

export function adopting(authority: Authority, log: Log): Adopting {
  const { trustDomain, authorities, callers } = authority
  return {
    async appendBundle({ x509Authorities, jwtAuthorities, witAuthorities, outputMask }, { peer }) {
      const x509 = x509Authorities.map((it, i) =>
        adoptedAuthority(it, `x509_authorities[${i}]`, trustDomain),
      )
      const jwt = jwtAuthorities.map((it, i) => adoptedKey(it, `jwt_authorities[${i}]`, appended))
      const wit = witAuthorities.map((it, i) => adoptedKey(it, `wit_authorities[${i}]`, appended))
      await authorities.adopt(x509)
      await authorities.jwt.adopt(jwt)
      await authorities.wit.adopt(wit)
      const ids = [...x509, ...jwt, ...wit].map(({ id }) => id)
      log.warn({ audit: true, caller: nameOf(peer), ids }, 'authorities were added to the bundle')
      return maskedBundle(bundleToWire(trustDomain, authorities), outputMask)
    },
    async publishJWTAuthority({ jwtAuthority }, context) {
      const by = downstreamOf(callers.downstream(context).spiffeId)
      await authorities.jwt.adopt([adoptedKey(jwtAuthority, 'jwt_authority', by)])
      return { jwtAuthorities: authorities.jwt.all().map(tokenKeyToWire) }
    },
    async publishWITAuthority({ witAuthority }, context) {
      const by = downstreamOf(callers.downstream(context).spiffeId)
      await authorities.wit.adopt([adoptedKey(witAuthority, 'wit_authority', by)])
      return { witAuthorities: authorities.wit.all().map(tokenKeyToWire) }
    },
  }
}
