// Path vectors: named chains made at test time, what RFC 5280 says of each, and where OpenSSL differs.
import {
  type CaChoices,
  type DevCa,
  type Extensions,
  issueDev,
  type LeafChoices,
  makeDevCa,
} from '../../certs-dev/authority.ts'
import { day, hour } from '../../certs-dev/development.ts'

/** The clock of all vectors; far from the real one, so that nothing passes by accident. */
export const now = Date.UTC(2031, 4, 17, 12)

export interface Difference {
  /** what `openssl verify -x509_strict` says instead of what we say */
  readonly openssl: 'accept' | 'reject'
  readonly why: string
}

export interface Vector {
  readonly name: string
  /** leaf first; `roots` is the bundle */
  readonly chain: readonly Uint8Array[]
  readonly roots: readonly Uint8Array[]
  /** a part of the reason; undefined when the path is valid */
  readonly reason: string | undefined
  readonly difference?: Difference
}

const times = { notBefore: now - day, notAfter: now + day }

export const ca = (name: string, choices: Partial<CaChoices> = {}): DevCa =>
  makeDevCa({ name, ...times, ...choices })

export const leaf = (issuer: DevCa, choices: Partial<LeafChoices> = {}): readonly Buffer[] =>
  issueDev(issuer, {
    id: 'spiffe://example.org/workload',
    notBefore: now - hour,
    notAfter: now + hour,
    ...choices,
  }).chain

export interface Plan {
  readonly root?: Partial<CaChoices>
  readonly intermediate?: Partial<CaChoices>
  readonly leaf?: Partial<LeafChoices>
}

/** Root, one intermediate and a leaf, each as usual but for what the plan says. */
export function threeLevels(plan: Plan): Pick<Vector, 'chain' | 'roots'> {
  const root = ca('root', plan.root)
  const intermediate = ca('intermediate', { parent: root, ...plan.intermediate })
  return { chain: leaf(intermediate, plan.leaf), roots: [root.certificate] }
}

export function vector(
  name: string,
  plan: Plan,
  reason: string | undefined,
  difference?: Difference,
): Vector {
  return { name, ...threeLevels(plan), reason, ...(difference && { difference }) }
}

/** The same change at each level: one vector per level, the reason with its depth. */
export function atEachLevel(
  name: string,
  change: { readonly extensions?: Extensions } & Partial<Omit<CaChoices, 'extensions'>>,
  reason: string | undefined,
  difference?: Difference,
): Vector[] {
  const at = (depth: number) =>
    reason === undefined || depth === 0 ? reason : `issuer ${depth}: ${reason}`
  return [
    vector(`${name} in the leaf`, { leaf: change }, at(0), difference),
    vector(`${name} in the intermediate`, { intermediate: change }, at(1), difference),
    vector(`${name} in the root`, { root: change }, at(2), difference),
  ]
}
