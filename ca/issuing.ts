// The two procedures with an authority's rules: who asks and what for in, an audited SVID out.
import type { Clock } from '../runtime/clock.ts'
import type { Log } from '../runtime/log.ts'
import type { Authorities } from './authorities/authorities.ts'
import type { Authority } from './authority.ts'
import { demandNotDenied, type GrantRules, termsFor, tokenTermsFor } from './grants.ts'
import { type IssueSteps, issue } from './issue.ts'
import type { Store } from './store/store.ts'
import { issueToken } from './token-svids.ts'

export interface IssuingOptions {
  readonly clock: Clock
  readonly store: Store
  readonly authorities: Authorities
  readonly rules: GrantRules
  readonly log: Log
  readonly between?: IssueSteps['between']
  /** told of each SVID by the kind of what was asked for */
  readonly onIssued: (kind: string) => void
}

const moment = (at: number) => new Date(at).toISOString()

export function createIssuing(options: IssuingOptions): Pick<Authority, 'issue' | 'issueToken'> {
  const { clock, store, authorities, rules, between, onIssued } = options
  const audit = options.log.child({ audit: true })
  const table = store.issuance

  async function told<T>(kind: string, issuing: () => Promise<T>): Promise<T> {
    try {
      const issued = await issuing()
      onIssued(kind)
      return issued
    } catch (error) {
      audit.warn({ err: error, kind }, 'not issued')
      throw error
    }
  }

  return {
    issue: (csr, attested, wanted) =>
      told(wanted.kind, () =>
        issue(csr, attested, {
          clock,
          table,
          signer: authorities.active,
          decide: (who) => termsFor(who, wanted, rules),
          stillAllowed: (id) => demandNotDenied(id, rules),
          audit: ({ spiffeId, serial, notAfter, requester, entryId }) =>
            audit.info(
              { spiffeId, serial, notAfter: moment(notAfter), requester, entryId },
              'issued',
            ),
          ...(between === undefined ? {} : { between }),
        }),
      ),
    issueToken: (purpose, attested, wanted) =>
      told(purpose.kind, () =>
        issueToken(purpose, attested, {
          clock,
          table,
          signer: (kind) => authorities[kind].active(),
          decide: (who) => tokenTermsFor(who, wanted, rules),
          audit: ({ id, spiffeId, expiresAt, requester }) =>
            audit.info(
              { spiffeId, id, kind: purpose.kind, expiresAt: moment(expiresAt), requester },
              'issued',
            ),
        }),
      ),
  }
}
