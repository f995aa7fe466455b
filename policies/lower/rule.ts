// One rule of a policy as a predicate, or the first thing in it that cannot be lowered.
import type { Destination } from '../attributes/request.ts'
import type { RuleDocument } from '../language/authorization.ts'
import { conditionOf } from '../language/conditions.ts'
import type { Mesh } from '../language/mesh.ts'
import type { Policy } from '../language/policy.ts'
import {
  type Attribute,
  fieldsOf,
  httpAttributes,
  type RuleField,
} from '../language/rule-fields.ts'
import { type Quantifier, quantifierOf } from '../rules/quantify.ts'
import type { Setting } from '../rules/test.ts'
import { clientAddress, destinationAddress, peerAddress } from './addresses.ts'
import { namespaces, principals, serviceAccounts, trustDomains } from './callers.ts'
import { methods, ports, serverNames } from './connections.ts'
import { headers } from './headers.ts'
import { hosts } from './hosts.ts'
import {
  type Demand,
  exactly,
  type Lower,
  type Lowering,
  type Protocol,
  refusal,
} from './lowering.ts'
import { paths, target } from './paths.ts'
import { all, always, any, never, not, type Predicate } from './predicate.ts'

/** How a lowered field differs from what is written: a DENY is wider, an ALLOW narrower. */
export interface Difference {
  readonly place: string
  readonly why: string
}

export type LoweredRule =
  | {
      readonly ok: true
      readonly when: Predicate
      readonly differences: readonly Difference[]
      readonly demands: readonly Demand[]
    }
  | ({ readonly ok: false; readonly isHarmless: boolean } & Difference)

const tokens: Lower = () => refusal('Envoy verifies no tokens here: claims are not known to it')

/** In strict nobody knows them: a DENY holds whatever they are, and an ALLOW never does. */
const metadata: Lower = (_, { quantifier }) =>
  quantifier === 'widest'
    ? exactly(always)
    : {
        ok: false,
        why: 'metadata of other filters is unknown: the rule never holds',
        isHarmless: true,
      }

const table: Readonly<Record<Attribute, Lower>> = {
  principals,
  namespaces,
  serviceAccounts,
  trustDomains,
  ipBlocks: peerAddress,
  remoteIpBlocks: clientAddress,
  requestPrincipals: tokens,
  hosts,
  ports,
  methods,
  paths,
  target,
  header: headers,
  claim: tokens,
  destinationIp: destinationAddress,
  sni: serverNames,
  metadata,
}

const opposite: Readonly<Record<Quantifier, Quantifier>> = {
  some: 'some',
  widest: 'narrowest',
  narrowest: 'widest',
}

export interface Place {
  readonly policy: Policy
  readonly mesh: Mesh
  readonly destination: Pick<Destination, 'port' | 'ip'>
  readonly protocol: Protocol
}

interface Part {
  readonly field: RuleField
  readonly lowering: Lowering
}

const asksHttp = ({ part, attribute }: RuleField) =>
  part !== 'exceptFor' && httpAttributes.has(attribute)

function lowerField(field: RuleField, place: Place): Part {
  const { policy, mesh, destination, protocol } = place
  const own = quantifierOf(policy.action, mesh.profile)
  const setting: Setting = {
    mesh,
    namespace: policy.namespace,
    // who is exempt has to be so beyond doubt
    quantifier: field.part === 'exceptFor' ? opposite[own] : own,
  }
  const { port, ip } = destination
  return { field, lowering: table[field.attribute]({ ...field, port, ip, protocol }, setting) }
}

function joined(document: RuleDocument, parts: readonly Part[]): Predicate {
  const predicatesOf = (part: RuleField['part'], alternative?: number) =>
    parts.flatMap(({ field, lowering }) => {
      const isIts = field.part === part && (alternative ?? field.alternative) === field.alternative
      return isIts && lowering.ok ? [lowering.predicate] : []
    })
  const anyOf = (part: 'from' | 'to' | 'exceptFor', list: readonly unknown[] = []) =>
    any(...list.map((_, i) => all(...predicatesOf(part, i))))
  return all(
    document.from === undefined ? always : anyOf('from', document.from),
    document.to === undefined ? always : anyOf('to', document.to),
    ...predicatesOf('when'),
    not(anyOf('exceptFor', document.exceptFor)),
  )
}

/** What of a rule is no list of values. */
function problemOf({ condition, when = [] }: RuleDocument): Difference | undefined {
  if (condition !== undefined) {
    return { place: 'condition', why: 'Envoy evaluates no CEL as it is evaluated here' }
  }
  const unknown = when.findIndex(({ key }) => conditionOf(key) === undefined)
  if (unknown < 0) return undefined
  return { place: `when[${unknown}].key`, why: 'a key that nobody knows' }
}

/** An ALLOW that asks about HTTP is no rule for TCP, and a DENY leaves HTTP out (authorization.md §4.9). */
export function lowerRule(document: RuleDocument, place: Place): LoweredRule {
  const isTcp = place.protocol === 'tcp'
  const fields = fieldsOf(document)
  if (isTcp && place.policy.action === 'ALLOW' && fields.some(asksHttp)) {
    return { ok: true, when: never, differences: [], demands: [] }
  }
  const problem = problemOf(document)
  if (problem !== undefined) return { ok: false, isHarmless: false, ...problem }
  const asked = fields.filter((field) => !isTcp || !asksHttp(field))
  const parts = asked.map((field) => lowerField(field, place))
  const differences: Difference[] = []
  const demands: Demand[] = []
  for (const { field, lowering } of parts) {
    if (!lowering.ok) {
      const { why, isHarmless = false } = lowering
      return { ok: false, place: field.place, why, isHarmless }
    }
    const { inexact, demand } = lowering
    if (inexact !== undefined) differences.push({ place: field.place, why: inexact })
    if (demand !== undefined) demands.push(demand)
  }
  return { ok: true, when: joined(document, parts), differences, demands }
}
