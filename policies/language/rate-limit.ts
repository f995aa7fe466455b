// RateLimit (castellan.dev/v1): how often a caller may ask, by identity.
import { z } from 'zod'
import { operation } from './authorization.ts'
import { duration } from './duration.ts'
import { metadata, ownVersion, selector } from './metadata.ts'
import * as words from './words.ts'

const limit = z.strictObject({
  // whom it speaks of; each of them has a bucket of its own. Everybody when left out
  principals: words.listOf(words.principal).optional(),
  // what it speaks of; every request when left out
  to: words.listOf(z.strictObject({ operation })).optional(),
  // so many requests …
  requests: z.int().min(1).max(1_000_000),
  // … in this time, refilled evenly
  per: duration
    .refine((ms) => ms >= 100, 'at least 100ms')
    .refine((ms) => ms <= 86_400_000, 'at most 24h'),
  // how many at once; `requests` when left out
  burst: z.int().min(1).max(1_000_000).optional(),
})

export const rateLimit = z.strictObject({
  apiVersion: z.literal(ownVersion),
  kind: z.literal('RateLimit'),
  metadata,
  spec: z.strictObject({
    selector: selector.optional(),
    targets: words.listOf(words.principal).optional(),
    limits: words.listOf(limit, 64),
  }),
})

export type RateLimitDocument = z.infer<typeof rateLimit>
