// What every point of decision is told about itself, whichever file says it: proxy specs and agent.yaml.
import { z } from 'zod'
import { peerIdHeader } from './header-names.ts'

// the header field by which workloads are told who asks, and callers who answered
export const identityHeader = z
  .string()
  .regex(/^x-[a-z0-9]+(?:-[a-z0-9]+)*$/, 'x- and lower-case words with hyphens')
  .refine((text) => !/^x-(?:envoy|forwarded)-/.test(text), 'is a name of proxies')
  .default(peerIdHeader)

/** Where keys of token issuers may be fetched from (jwksUri of RequestAuthentication). */
export const jwksAccess = (path: z.ZodType<string> = z.string()) =>
  z
    .strictObject({
      // PEM file of the roots that such servers are verified with; the public ones when left out
      roots: path.optional(),
      // whether addresses of private networks and of this machine will do
      privateAddresses: z.boolean().default(false),
    })
    .prefault({})

// decisions as lines of the log
export const decisionLog = z
  .strictObject({
    // which share of what is allowed, and of what is not: from 0 to 1
    allowed: z.number().min(0).max(1).default(0),
    denied: z.number().min(0).max(1).default(1),
    // lines at most; what is left out is counted in the next one
    perSecond: z.int().min(1).max(100_000).default(100),
    // whether paths are in it; queries never are
    paths: z.boolean().default(true),
  })
  .prefault({})

export type DecisionLogSpec = Readonly<z.infer<typeof decisionLog>>
export type JwksAccess = Readonly<z.infer<ReturnType<typeof jwksAccess>>>
