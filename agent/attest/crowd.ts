// How many connections one user of the node may have, and all users together: who opens all there are keeps
// nobody else out.
import type { Socket } from 'node:net'
import type { Log } from '../../runtime/log.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import type { Caller } from './caller.ts'

export interface CrowdLimits {
  readonly perUser: number
  readonly all: number
}

export interface CrowdOptions extends CrowdLimits {
  readonly log: Pick<Log, 'warn'>
}

/** each connection takes a descriptor, and one that pins its process */
const descriptorsEach = 2
/** descriptors for everything else that an agent has open */
const reserve = 256

/** The soft limit in /proc/PID/limits; undefined where there is none. */
export function mostDescriptors(limits: string): number | undefined {
  const [, most] = /^Max open files +(\d+) /m.exec(limits) ?? []
  return most === undefined ? undefined : Number(most)
}

/** Room for four users that take all they may; with few file descriptors for two, and then they may less. */
export function crowdLimits(wanted: number, descriptors: number | undefined): CrowdLimits {
  const room =
    descriptors === undefined
      ? Number.POSITIVE_INFINITY
      : Math.floor((descriptors - reserve) / descriptorsEach)
  const all = Math.max(2, Math.min(4 * wanted, room))
  return { perUser: Math.min(wanted, Math.floor(all / 2)), all }
}

/** Throws ERR_EXHAUSTED for one connection too many; those that are open go on. */
export function admitPerUser(
  callers: (socket: Socket) => Caller,
  { perUser, all, log }: CrowdOptions,
): (socket: Socket) => Caller {
  const open = new Map<number, number>()
  /** users that are at their limit, as the log has it */
  const told = new Set<number>()
  let total = 0

  function leave(uid: number): void {
    total--
    const left = (open.get(uid) ?? 1) - 1
    if (left === 0) open.delete(uid)
    else open.set(uid, left)
    if (left <= perUser / 2) told.delete(uid)
  }

  function demandRoom(uid: number, count: number): void {
    if (count < perUser && total < all) return
    const problem =
      count < perUser
        ? `this agent has ${total} connections already`
        : `user ${uid} has ${count} connections already`
    if (!told.has(uid)) log.warn({ uid }, `connections are refused: ${problem}`)
    told.add(uid)
    throw new IdentityError('ERR_EXHAUSTED', problem, { retryAfter: 1000 })
  }

  return (socket) => {
    const caller = callers(socket)
    const { uid } = caller.process
    const count = open.get(uid) ?? 0
    try {
      demandRoom(uid, count)
    } catch (error) {
      caller[Symbol.dispose]()
      throw error
    }
    open.set(uid, count + 1)
    total++
    let isOpen = true
    return {
      ...caller,
      [Symbol.dispose]() {
        if (isOpen) leave(uid)
        isOpen = false
        caller[Symbol.dispose]()
      },
    }
  }
}
