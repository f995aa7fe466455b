// How fast one user of the node may call: each call is attested, and some have the authority sign. A bucket
// of tokens for each user, so that a program in a loop slows down nobody else's.
import type { Clock } from '../../runtime/clock.ts'
import type { Log } from '../../runtime/log.ts'
import { IdentityError } from '../../spiffe/errors.ts'

export interface PaceOptions {
  /** new calls of one user, in the long run */
  readonly perSecond: number
  /** what a user that was quiet may call at once */
  readonly atOnce: number
  readonly clock: Pick<Clock, 'monotonic'>
  readonly log: Pick<Log, 'warn'>
}

interface Bucket {
  tokens: number
  /** when it was filled up, by the monotonic clock */
  at: number
  isTold: boolean
}

/** buckets that are looked through for full ones */
const many = 1024
/** milliseconds: of those that come back together some are let in each time */
const retryAfter = 1000

/** Throws ERR_EXHAUSTED, with a delay, for a call too many of a user. */
export function createPace({ perSecond, atOnce, clock, log }: PaceOptions): (uid: number) => void {
  // who is not here has a full one
  const buckets = new Map<number, Bucket>()

  function fill(bucket: Bucket, now: number): boolean {
    bucket.tokens = Math.min(atOnce, bucket.tokens + ((now - bucket.at) * perSecond) / 1000)
    bucket.at = now
    return bucket.tokens >= atOnce
  }

  function bucketOf(uid: number, now: number): Bucket {
    const known = buckets.get(uid)
    if (known !== undefined) {
      if (fill(known, now)) known.isTold = false
      return known
    }
    if (buckets.size >= many)
      for (const [other, bucket] of buckets) if (fill(bucket, now)) buckets.delete(other)
    const made = { tokens: atOnce, at: now, isTold: false }
    buckets.set(uid, made)
    return made
  }

  return (uid) => {
    const bucket = bucketOf(uid, clock.monotonic())
    if (bucket.tokens >= 1) {
      bucket.tokens--
      return
    }
    const problem = `user ${uid} calls more often than ${perSecond} times a second`
    if (!bucket.isTold) log.warn({ uid }, `calls are refused: ${problem}`)
    bucket.isTold = true
    throw new IdentityError('ERR_EXHAUSTED', problem, { retryAfter })
  }
}
