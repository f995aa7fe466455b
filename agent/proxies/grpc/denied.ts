// The deny-list for programs without a proxy. They compare names and look at nothing else: not at serials, not at
// CRLs (both libraries refuse a resource with one), not at who has signed. What they cannot see is denied more widely,
// or nobody gets in.
import type { DenyRule } from '../../../proto/gen/castellan/deny/v1/deny_pb.js'
import { isSpiffeId, pathOf, type SpiffeId } from '../../../spiffe/id.ts'
import { earliest } from '../../xds/resource.ts'

export interface DeniedToPrograms {
  /** whom no call may come from, and none go to */
  readonly ids: readonly SpiffeId[]
  /** why nobody gets in, and nobody is called, in words */
  readonly unseen: readonly string[]
  /** what is denied otherwise than the list says, in words */
  readonly remarks: readonly string[]
  /** another text when connections of before are to be made anew: others are believed since */
  readonly trust: string
  /** milliseconds since the epoch at which `trust` changes */
  readonly until: number | undefined
}

export interface Believing {
  /** key ids of the roots of the own trust domain, in hex, the denied ones too */
  readonly roots: ReadonlySet<string>
  /** milliseconds since the epoch */
  readonly now: number
}

/**
 * Milliseconds after a denial at which programs have read their files anew: those that look as often as their
 * bootstrap says when nothing else is asked for, and the others. Before that a connection made anew is believed again.
 */
const readings = [15_000, 120_000] as const
/** of what is alike; the others are counted */
const mostNamed = 5

const listed = (all: readonly string[]): string =>
  [
    ...all.slice(0, mostNamed),
    ...(all.length > mostNamed ? [`${all.length - mostNamed} more`] : []),
  ].join(', ')

const anAuthority = 'only whole identities can be refused, and it could have signed any'

/** A certificate by whom it was issued to: all of that identity is refused. */
function ofSerials(rules: readonly DenyRule[]) {
  const holders = new Map<SpiffeId, string[]>()
  const unseen: string[] = []
  for (const { target, issuedTo } of rules) {
    if (target.case !== 'serial') continue
    const what = `certificate ${target.value} is on the deny-list`
    if (!isSpiffeId(issuedTo))
      unseen.push(
        `${what}, and the rule does not say to whom it was issued: castellan deny remove, and deny add --serial again`,
      )
    else if (pathOf(issuedTo) === '')
      unseen.push(`${what}, of an authority below our own: ${anAuthority}`)
    else holders.set(issuedTo, [...(holders.get(issuedTo) ?? []), target.value])
  }
  const each = [...holders].map(
    ([id, serials]) =>
      `all of ${id} is refused: gRPC looks at no serials, and on the deny-list is ${listed(serials)}`,
  )
  const rest = each.length - mostNamed
  const more = rest > 0 ? [`and so are ${rest} more identities, for certificates of theirs`] : []
  return {
    ids: [...holders.keys()],
    unseen,
    remarks: [...each.slice(0, mostNamed), ...more],
  }
}

/** Roots are left out of the files that programs read; of what is below them nobody can tell them. */
function ofAuthorities(rules: readonly DenyRule[], { roots, now }: Believing) {
  const denied = rules.filter(({ target }) => target.case === 'authorityId')
  const isRoot = ({ target }: DenyRule) => roots.has(target.value ?? '')
  const marks = denied.filter(isRoot).map(({ target, createdAt }) => {
    const ends = readings.map((after) => Number(createdAt) * 1000 + after)
    return { id: target.value, ahead: ends.filter((at) => at > now) }
  })
  const remarks = marks.map(
    ({ id }) =>
      `root ${id} is on the deny-list: the agent leaves it out of bundle files, and has connections to this program made anew once they were read; those that it has made itself go on`,
  )
  const due = marks.filter(({ ahead }) => ahead.length < readings.length)
  return {
    unseen: denied
      .filter((rule) => !isRoot(rule) && !rule.root)
      .map(({ target }) => `authority ${target.value} is on the deny-list: ${anAuthority}`),
    remarks,
    trust: due.map(({ id, ahead }) => `${id} ${readings.length - ahead.length}`).join(),
    until: earliest(...marks.flatMap(({ ahead }) => ahead)),
  }
}

/** Of rules that hold now. */
export function deniedToPrograms(
  rules: readonly DenyRule[],
  believing: Believing,
): DeniedToPrograms {
  const serials = ofSerials(rules)
  const { trust, until, ...authorities } = ofAuthorities(rules, believing)
  const ids = rules.flatMap(({ target }) =>
    target.case === 'spiffeId' && isSpiffeId(target.value) ? [target.value] : [],
  )
  const unseen = [...serials.unseen, ...authorities.unseen]
  const rest = unseen.length - mostNamed
  return {
    ids: [...new Set([...ids, ...serials.ids])],
    unseen: rest > 0 ? [...unseen.slice(0, mostNamed), `and ${rest} more like them`] : unseen,
    remarks: [...serials.remarks, ...authorities.remarks],
    ...{ trust, until },
  }
}
