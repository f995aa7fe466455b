// castellan.deny.v1.DenyRules
import { randomUUID } from 'node:crypto'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { denyTargetOf } from '../../client/deny-list.ts'
import type {
  DenyListSchema,
  DenyRule,
  DenyRuleSchema,
} from '../../proto/gen/castellan/deny/v1/deny_pb.js'
import { DenyRules } from '../../proto/gen/castellan/deny/v1/deny_rules_pb.js'
import { type Service, service } from '../../runtime/grpc/service.ts'
import type { Log } from '../../runtime/log.ts'
import { parseCertificate } from '../../spiffe/certificate.ts'
import type { DenyTarget } from '../../spiffe/deny-list.ts'
import { explain, hasCode, IdentityError } from '../../spiffe/errors.ts'
import { spiffeIdOf } from '../../spiffe/id.ts'
import { keyIdOf } from '../../spiffe/key-id.ts'
import type { Slot } from '../authorities/slot.ts'
import type { Authority } from '../authority.ts'
import { nameOf, type Peer } from '../callers.ts'
import { longestDownstream } from '../downstream.ts'
import { demandNoAgents } from '../permits.ts'
import type { DenyRuleRow } from '../store/model.ts'
import { badRequest, printableReason, secondsOf } from '../wire.ts'

/** the last second that a certificate could name too */
const latest = 253_402_300_799n
/** certificates of authorities below this one that are looked at together */
const pageOfBelow = 500
/** they travel whole, in one message */
const mostRules = 10_000

function targetToWire(target: DenyTarget): DenyRule['target'] {
  switch (target.kind) {
    case 'id':
      return { case: 'spiffeId', value: target.id }
    case 'serial':
      return { case: 'serial', value: target.serial }
    case 'authority':
      return { case: 'authorityId', value: target.authorityId }
  }
}

function ruleToWire(rule: DenyRuleRow): MessageInitShape<typeof DenyRuleSchema> {
  const { id, target, reason, createdAt, expiresAt, issuedTo = '', isRoot: root = false } = rule
  return {
    id,
    target: targetToWire(target),
    reason,
    createdAt: secondsOf(createdAt),
    expiresAt: secondsOf(expiresAt),
    ...{ issuedTo, root },
  }
}

/** The list as it goes out to agents. */
export function denyListToWire(
  rules: readonly DenyRuleRow[],
): MessageInitShape<typeof DenyListSchema> {
  return { rules: rules.map(ruleToWire) }
}

function readRule(rule: DenyRule | undefined, now: number) {
  if (rule === undefined) return badRequest([{ field: 'rule', problem: 'is missing' }])
  const reason = printableReason(rule.reason, 'rule.reason')
  const expiresAt = Number(rule.expiresAt) * 1000
  if (rule.expiresAt > latest)
    return badRequest([{ field: 'rule.expires_at', problem: 'is after the year 9999; 0 is never' }])
  if (expiresAt !== 0 && expiresAt <= now)
    return badRequest([{ field: 'rule.expires_at', problem: 'is in the past' }])
  try {
    return { target: denyTargetOf(rule), reason, expiresAt }
  } catch (error) {
    if (!hasCode(error)) throw error
    return badRequest([{ field: 'rule.target', problem: explain(error) }])
  }
}

/** Else agents would hold nothing but certificates that are denied, and could not come back. */
function demandTainted({ id, state, isTainted }: Slot): void {
  if (isTainted) return
  throw new IdentityError(
    'ERR_PRECONDITION',
    `authority ${id} is ${state}, not tainted; activate another one and run castellan authority taint ${id} first`,
  )
}

/** When the certificate of an authority below this one ends; 0 when there is none of that key. */
async function belowUntil(
  authorityId: string,
  { trustDomain, store, clock }: Authority,
): Promise<number> {
  const spiffeId = spiffeIdOf(trustDomain)
  const filter = { spiffeId, since: clock.now() - longestDownstream, limit: pageOfBelow }
  let until = 0
  for (let before: number | undefined = Number.MAX_SAFE_INTEGER; before !== undefined; ) {
    const { rows, next } = await store.issuance.list({ ...filter, before })
    for (const { certificate, notAfter } of rows) {
      const { publicKey } = parseCertificate(certificate)
      if (keyIdOf(publicKey).toString('hex') === authorityId) until = Math.max(until, notAfter)
    }
    before = next
  }
  return until
}

interface Known extends Pick<DenyRuleRow, 'issuedTo' | 'isRoot'> {
  /** the time after which a rule has nothing left to deny, 0 for never */
  readonly useUntil: number
}

/**
 * Refuses what would leave the trust domain without its authority, or agents without a way back. Gives what is
 * known here of the target.
 */
async function checkTarget(target: DenyTarget, authority: Authority): Promise<Known> {
  const { trustDomain, authorities, store } = authority
  const server = spiffeIdOf(trustDomain, '/spire/server')
  const refuseServer = (): never => {
    throw new IdentityError(
      'ERR_PRECONDITION',
      `${server} is the authority itself; a stolen key of its own is replaced by castellan authority prepare, activate, taint, revoke`,
    )
  }
  switch (target.kind) {
    case 'id':
      return target.id === server ? refuseServer() : { useUntil: 0 }
    case 'serial': {
      const row = await store.issuance.find(target.serial)
      if (row === undefined)
        throw new IdentityError('ERR_NOT_FOUND', `no certificate ${target.serial} was issued here`)
      // Istio's certificates renew themselves: what was renewed from it is denied for good
      const isLast = row.requester.startsWith('istio:')
      if (row.spiffeId === server) return refuseServer()
      return { useUntil: isLast ? 0 : row.notAfter, issuedTo: row.spiffeId }
    }
    case 'authority': {
      const known = authorities.all().find(({ id }) => id === target.authorityId)
      const below = known === undefined ? await belowUntil(target.authorityId, authority) : 0
      if (below > 0) return { useUntil: below }
      if (known === undefined) {
        const message = `there is no X.509 authority ${target.authorityId}`
        throw new IdentityError('ERR_NOT_FOUND', message)
      }
      demandTainted(known)
      await demandNoAgents('deny', known, authority)
      return { useUntil: known.notAfter, isRoot: true }
    }
  }
}

const sameTarget = (a: DenyTarget, b: DenyTarget) => JSON.stringify(a) === JSON.stringify(b)

export function denyRulesService(authority: Authority, log: Log): Service<Peer> {
  const { registry, store, clock } = authority

  const say = (what: string, { id, target, reason }: DenyRuleRow, peer: Peer) =>
    log.warn(
      { audit: true, caller: nameOf(peer), rule: id, target, reason },
      `an operator ${what} a ${target.kind}`,
    )

  /** What has expired makes room. */
  async function sweep(): Promise<void> {
    const now = clock.now()
    for (const { id, expiresAt } of registry.denyRules()) {
      if (expiresAt !== 0 && expiresAt <= now) await store.denyRules.remove(id)
    }
  }

  return service<typeof DenyRules, Peer>(DenyRules, {
    async addRule({ rule }, { peer }) {
      const createdAt = clock.now()
      const { target, reason, expiresAt } = readRule(rule, createdAt)
      const { useUntil, ...known } = await checkTarget(target, authority)
      await sweep()
      const rules = registry.denyRules()
      const same = rules.find((it) => sameTarget(it.target, target))
      if (same !== undefined)
        throw new IdentityError('ERR_ALREADY_EXISTS', `rule ${same.id} denies the same`)
      if (rules.length >= mostRules)
        throw new IdentityError('ERR_PRECONDITION', `the deny-list has ${mostRules} rules already`)
      const ends = expiresAt || useUntil
      const row = { id: randomUUID(), target, reason, createdAt, expiresAt: ends, ...known }
      await store.denyRules.add(row)
      say('denied', row, peer)
      return ruleToWire(row)
    },
    listRules: () => denyListToWire(registry.denyRules()),
    async removeRule({ id }, { peer }) {
      const rule = registry.denyRules().find((known) => known.id === id)
      if (rule === undefined || !(await store.denyRules.remove(id)))
        throw new IdentityError('ERR_NOT_FOUND', `there is no deny rule ${JSON.stringify(id)}`)
      say('took back the denial of', rule, peer)
      return ruleToWire(rule)
    },
  })
}
