// The door in front of a service, as any caller meets it: who serves there is verified, whatever is shown to it.
import type { KeyObject } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { connect, type PeerCertificate, type TLSSocket } from 'node:tls'
import { bundleOfPem, bundleSourceOf } from '../../spiffe/bundle.ts'
import { parseSpiffeId, parseTrustDomain } from '../../spiffe/id.ts'
import { matchId } from '../../spiffe/match.ts'
import { keyPairToPem } from '../../spiffe/pem.ts'
import { verifySvid } from '../../spiffe/svid.ts'
import type { DevMesh } from './mesh.ts'
import { identityOf, type ServiceName, trustDomain } from './stage.ts'

export interface Credential {
  /** DER, leaf first */
  readonly chain: readonly Uint8Array[]
  readonly privateKey: KeyObject
}

export interface Knock {
  readonly socket: TLSSocket
  /** of the certificate that was shown and is the service's own; undefined before the handshake */
  serial(): string | undefined
}

export interface KnockOptions {
  readonly credential?: Credential | undefined
  /** milliseconds since the epoch */
  readonly now: number
}

const keyPairOf = ({ chain, privateKey: key }: Credential) => keyPairToPem({ chain, key })

/** Shakes hands with what stands in front of `service`. */
export function knock(
  { stage, doors }: DevMesh,
  service: ServiceName,
  { credential, now }: KnockOptions,
): Knock {
  const ca = readFileSync(stage.path('bundle.pem'), 'utf8')
  const bundle = bundleOfPem(parseTrustDomain(trustDomain), ca, 'bundle.pem')
  const match = matchId(parseSpiffeId(identityOf(service)))
  let serial: string | undefined
  const checkServerIdentity = (_: string, peer: PeerCertificate): Error | undefined => {
    try {
      serial = verifySvid([peer.raw], bundleSourceOf(bundle), { now, match }).leaf.serial
      return undefined
    } catch (error) {
      return error instanceof Error ? error : new Error(String(error))
    }
  }
  const own = credential === undefined ? {} : keyPairOf(credential)
  const where = { host: '127.0.0.1', port: doors[service], servername: '' }
  const socket = connect({ ...where, ca, checkServerIdentity, ...own })
  return { socket, serial: () => serial }
}
