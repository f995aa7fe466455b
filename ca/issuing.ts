// The procedures of issuance with an authority's rules: who asks and what for in, an audited SVID out.
import type { Clock } from '../runtime/clock.ts'
import type { Log } from '../runtime/log.ts'
import type { Span, Tracer } from '../runtime/tracing/span.ts'
import { type ErrorCode, hasCode } from '../spiffe/errors.ts'
import type { TrustDomain } from '../spiffe/id.ts'
import type { Authorities, TokenKind } from './authorities/authorities.ts'
import type { Authority } from './authority.ts'
import { issueDownstream } from './downstream.ts'
import { demandNotDenied, type GrantRules, termsFor, tokenTermsFor, type Wanted } from './grants.ts'
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
  readonly trustDomain: TrustDomain
  /** told of each SVID that was asked for, once it is delivered or refused */
  readonly onAsked: (asked: Asked) => void
  readonly tracer: Tracer
}

export interface Asked {
  /** what was asked for: a member of `Wanted` or `WantedToken`, or an authority below this one */
  readonly kind: Wanted['kind'] | TokenKind | 'downstream'
  readonly ms: number
  /** undefined when it was delivered */
  readonly refusal: ErrorCode | undefined
}

const moment = (at: number) => new Date(at).toISOString()

type Issuing = Pick<Authority, 'issue' | 'issueToken' | 'issueDownstream'>

export function createIssuing(options: IssuingOptions): Issuing {
  const { clock, store, authorities, rules, between, trustDomain, log, onAsked, tracer } = options
  const audit = options.log.child({ audit: true })
  const table = store.issuance

  async function told<T>(kind: Asked['kind'], issuing: (span: Span) => Promise<T>): Promise<T> {
    const began = clock.monotonic()
    const say = (refusal: Asked['refusal']) =>
      onAsked({ kind, ms: clock.monotonic() - began, refusal })
    try {
      const attributes = { 'castellan.svid.kind': kind }
      const issued = await tracer.span('issue', { attributes }, issuing)
      say(undefined)
      return issued
    } catch (error) {
      say(hasCode(error) ? error.code : 'ERR_RUNTIME')
      audit.warn({ err: error, kind }, 'not issued')
      throw error
    }
  }

  return {
    issue: (csr, attested, wanted) =>
      told(wanted.kind, (span) =>
        issue(csr, attested, {
          clock,
          table,
          signer: authorities.active,
          decide: (who) => termsFor(who, wanted, rules),
          stillAllowed: (id) => demandNotDenied(id, rules),
          mark: tracer.isOn ? span.mark : undefined,
          audit({ spiffeId, serial, notAfter, requester, entryId }) {
            span.set({ 'castellan.spiffe_id': spiffeId, 'castellan.serial': serial })
            audit.info(
              { spiffeId, serial, notAfter: moment(notAfter), requester, entryId },
              'issued',
            )
          },
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
    issueDownstream: (csr, asked) =>
      told('downstream', () =>
        issueDownstream(csr, asked, { trustDomain, clock, authorities, log, table }),
      ),
  }
}
