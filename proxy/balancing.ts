// Which of several endpoints is next.
import type { OutboundSpec } from '../proxy-spec/outbound.ts'

/** Something that is chosen by how much of it is under way. */
export interface Loaded {
  readonly inFlight: number
}

/** Undefined for none of them. */
export type Choose = <T extends Loaded>(candidates: readonly T[]) => T | undefined

type Random = () => number

const indexBelow = (length: number, random: Random) =>
  Math.min(length - 1, Math.floor(random() * length))

/** The less loaded of two that chance names: nearly as even as looking at all, without a herd (as Envoy does). */
function leastRequest(random: Random): Choose {
  return (candidates) => {
    const { length } = candidates
    const first = indexBelow(length, random)
    const one = candidates[first]
    if (length < 2 || one === undefined) return one
    const other = candidates[(first + 1 + indexBelow(length - 1, random)) % length]
    return other !== undefined && other.inFlight < one.inFlight ? other : one
  }
}

function roundRobin(): Choose {
  let turn = 0
  return (candidates) => {
    // an empty list is no turn of anyone
    if (candidates.length > 0) turn = (turn + 1) % Number.MAX_SAFE_INTEGER
    return candidates[(turn - 1) % candidates.length]
  }
}

const byName: Readonly<Record<OutboundSpec['loadBalancing'], (random: Random) => Choose>> = {
  'least-request': leastRequest,
  'round-robin': roundRobin,
  random: (random) => (candidates) => candidates[indexBelow(candidates.length, random)],
}

/** `random` is uniform in [0, 1). */
export const chooseBy = (name: OutboundSpec['loadBalancing'], random: Random) =>
  byName[name](random)
