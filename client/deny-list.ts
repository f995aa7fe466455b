// The deny-list as it comes over the wire.
import type {
  DenyList as DenyListMessage,
  DenyRule as DenyRuleMessage,
} from '../proto/gen/castellan/deny/v1/deny_pb.js'
import { serialFromHex } from '../spiffe/certificate.ts'
import { createDenyList, type DenyList, type DenyTarget } from '../spiffe/deny-list.ts'
import { IdentityError } from '../spiffe/errors.ts'
import { parseSpiffeId } from '../spiffe/id.ts'

const authorityId = /^[0-9a-f]{40}$/

function refuse(field: string, problem: string): never {
  throw new IdentityError('ERR_BAD_REQUEST', `${field} ${problem}`, {
    fields: [{ field, problem }],
  })
}

/** Throws ERR_BAD_REQUEST or ERR_SPIFFE_ID. A rule that cannot be read must not be skipped. */
export function denyTargetOf({ target }: Pick<DenyRuleMessage, 'target'>): DenyTarget {
  switch (target.case) {
    case 'spiffeId':
      return { kind: 'id', id: parseSpiffeId(target.value) }
    case 'serial': {
      const serial = serialFromHex(target.value)
      if (serial === undefined) return refuse('serial', 'is not hexadecimal')
      return { kind: 'serial', serial }
    }
    case 'authorityId':
      if (!authorityId.test(target.value)) refuse('authority_id', 'is not 40 hexadecimal digits')
      return { kind: 'authority', authorityId: target.value }
    case undefined:
      return refuse('target', 'is missing: a SPIFFE ID, a serial or an authority')
  }
}

/** Throws as `denyTargetOf`. */
export function denyListOf(message: DenyListMessage | undefined): DenyList {
  const rules = (message?.rules ?? []).map((rule) => ({
    id: rule.id,
    target: denyTargetOf(rule),
    reason: rule.reason,
    expiresAt: Number(rule.expiresAt) * 1000,
  }))
  return createDenyList(rules)
}
