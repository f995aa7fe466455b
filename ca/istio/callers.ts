// Who asks Istio's certificate service: by the certificate that this service gave before, else by a
// token. Nothing else counts: neither names in the CSR nor x-forwarded-client-cert.
import type { CallContext } from '../../runtime/grpc/service.ts'
import { type Serial, serialFromHex } from '../../spiffe/certificate.ts'
import { explain, hasCode, IdentityError } from '../../spiffe/errors.ts'
import { type Attested, vouch } from '../attestors/attestor.ts'
import { isDirect, type Peer } from '../callers.ts'
import type { DenyRuleRow, IssuedRow } from '../store/model.ts'
import type { IssuanceTable } from '../store/store.ts'
import { holderOf, type TokenRules } from './tokens.ts'

export interface IstioCallers {
  /** Throws ERR_UNTRUSTED in words that tell the caller nothing; the log has the reason. */
  authenticate(context: Pick<CallContext<Peer>, 'peer' | 'metadata'>): Promise<Attested>
}

export interface IstioCallersOptions {
  readonly tokens: TokenRules
  readonly issued: Pick<IssuanceTable, 'find'>
  readonly denyRules: () => readonly DenyRuleRow[]
}

/** the requester of what this service issues begins so; an issuer follows, or where a renewal began */
const origin = 'istio:'

/** The serial that was given for a token, from which this certificate was renewed. */
function lineageOf({ requester, serial }: IssuedRow): Serial {
  return serialFromHex(requester.slice(origin.length)) ?? serial
}

function untrusted(message: string): never {
  throw new IdentityError('ERR_UNTRUSTED', message)
}

export function createIstioCallers({
  tokens,
  issued,
  denyRules,
}: IstioCallersOptions): IstioCallers {
  /** Whoever stole one certificate has all that were renewed from it. */
  async function isLineageDenied(first: Serial): Promise<boolean> {
    for (const { target, expiresAt } of denyRules()) {
      if (target.kind !== 'serial' || (expiresAt !== 0 && expiresAt <= tokens.clock.now())) continue
      const row = await issued.find(target.serial)
      if (row?.requester.startsWith(origin) === true && lineageOf(row) === first) return true
    }
    return false
  }

  /** A certificate that came another way renews the same way, or losing an entry would end nothing. */
  async function byCertificate(peer: Peer): Promise<Attested> {
    if (!isDirect(peer)) return untrusted('no client certificate of this authority')
    if (peer.notAfter < tokens.clock.now())
      return untrusted(`the certificate of ${peer.id} has expired`)
    const row = await issued.find(peer.serial)
    if (row?.spiffeId !== peer.id || !row.requester.startsWith(origin))
      return untrusted(
        `the certificate of ${peer.id} was not issued by Istio's certificate service`,
      )
    const first = lineageOf(row)
    if (await isLineageDenied(first))
      return untrusted(`a certificate of the lineage of ${first} is on the deny-list`)
    return vouch({ kind: 'service account', id: peer.id, name: `${origin}${first}` })
  }

  async function byToken(metadata: CallContext<Peer>['metadata']): Promise<Attested> {
    const [authorization, ...others] = metadata.get('authorization') ?? []
    if (authorization === undefined || others.length > 0) return untrusted('no token, or several')
    const { id, issuer } = await holderOf(authorization, tokens)
    return vouch({ kind: 'service account', id, name: `${origin}${issuer}` })
  }

  return {
    async authenticate({ peer, metadata }) {
      const reasons: string[] = []
      for (const way of [() => byCertificate(peer), () => byToken(metadata)]) {
        try {
          return await way()
        } catch (error) {
          if (!hasCode(error, 'ERR_UNTRUSTED')) throw error
          reasons.push(explain(error))
        }
      }
      const cause = new Error(reasons.join('; '))
      throw new IdentityError('ERR_UNTRUSTED', 'request authenticate failure', { cause })
    },
  }
}
