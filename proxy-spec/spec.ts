// The proxy spec: whom the sidecar is, where it listens and whom it expects to meet.
import { z } from 'zod'
import { backend, meshDocument } from '../policies/language/mesh.ts'
import { address, addressText, duration, loadConfig } from '../runtime/config.ts'
import { explain } from '../spiffe/errors.ts'
import { parseSpiffeId } from '../spiffe/id.ts'
import { authorizers } from './authorizers.ts'
import { loopback } from './loopback.ts'

const spiffeId = z.string().transform((text, context) => {
  try {
    return parseSpiffeId(text)
  } catch (error) {
    context.addIssue({ code: 'custom', message: explain(error) })
    return z.NEVER
  }
})

// http: HTTP/1.1 and HTTP/2, each request decided; tcp: bytes, decided once per connection
const protocol = z.enum(['http', 'tcp'])

const listenerName = z
  .string()
  .regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'a name has a-z, 0-9 and hyphens, at most 63')

const inbound = z.strictObject({
  // in logs; inbound-0, inbound-1, … when left out
  name: listenerName.optional(),
  // where peers connect, with mutual TLS
  listen: address,
  protocol,
  // the workload; its port is the destination port that policies see
  forwardTo: address,
  // how the workload reads paths: policies take its readings into account
  backend: backend.optional(),
  // a connection is ended after this; half the life of the own SVID when left out, never more
  maxConnectionAge: duration.optional(),
})

const outbound = z
  .strictObject({
    // in logs; outbound-0, outbound-1, … when left out
    name: listenerName.optional(),
    // where local programs connect, without TLS; whoever reaches it speaks as this identity
    listen: address,
    // has to be said to listen elsewhere than on loopback
    allowNonLoopback: z.boolean().default(false),
    protocol,
    // the peer's address, or …
    destination: address.optional(),
    // … its name among the endpoints that the agent knows; exactly one of the two
    service: z.string().min(1).optional(),
    // the SPIFFE IDs that the peer may show; a request is sent to no one else
    expect: z.array(spiffeId).min(1, 'name at least one SPIFFE ID').max(64),
  })
  .refine((it) => (it.destination === undefined) !== (it.service === undefined), {
    path: ['destination'],
    message: 'give either destination or service',
  })
  .refine((it) => it.allowNonLoopback || loopback.test(it.listen.host), {
    path: ['listen'],
    message: 'not a loopback address; set allowNonLoopback: true if that is meant',
  })

export const proxySpec = z
  .strictObject({
    // the Workload API, as unix:///path; SPIFFE_ENDPOINT_SOCKET when left out
    workloadApi: z.string().optional(),
    // which of the workload's SVIDs to use; the first when left out
    identity: spiffeId.optional(),
    // where keys of token issuers may be fetched from (jwksUri of RequestAuthentication)
    jwks: z
      .strictObject({
        // PEM file of the roots that such servers are verified with; the public ones when left out
        roots: z.string().optional(),
        // whether addresses of private networks and of this machine will do
        privateAddresses: z.boolean().default(false),
      })
      .prefault({}),
    // whom CUSTOM policies ask, by the names of their providers
    authorizers,
    // whose X-Forwarded-For counts, as addresses and CIDR blocks; and how many entries from its right the client is
    trustedProxies: meshDocument.shape.trustedProxies,
    trustedHops: meshDocument.shape.trustedHops,
    // decisions as lines of the log
    decisionLog: z
      .strictObject({
        // which share of what is allowed, and of what is not: from 0 to 1
        allowed: z.number().min(0).max(1).default(0),
        denied: z.number().min(0).max(1).default(1),
        // lines at most; what is left out is counted in the next one
        perSecond: z.int().min(1).max(100_000).default(100),
        // whether paths are in it; queries never are
        paths: z.boolean().default(true),
      })
      .prefault({}),
    inbound: z.array(inbound).max(256).default([]),
    outbound: z.array(outbound).max(256).default([]),
  })
  .superRefine((it, context) => {
    const listeners = [...it.inbound, ...it.outbound]
    if (listeners.length === 0) {
      context.addIssue({ code: 'custom', message: 'no listener: name one inbound or outbound' })
    }
    const problem = (message: string) => context.addIssue({ code: 'custom', message })
    const places = listeners.filter(({ listen }) => listen.port !== 0)
    for (const text of duplicates(places.map(({ listen }) => addressText(listen)))) {
      problem(`two listeners on ${text}`)
    }
    for (const text of duplicates(listeners.flatMap(({ name }) => name ?? []))) {
      problem(`two listeners named ${text}`)
    }
  })

function duplicates(texts: readonly string[]): string[] {
  return texts.filter((text, i) => texts.indexOf(text) !== i)
}

export type ProxySpec = Readonly<z.infer<typeof proxySpec>>
export type InboundSpec = Readonly<ProxySpec['inbound'][number]>
export type OutboundSpec = Readonly<ProxySpec['outbound'][number]>

/** Reads `file`. Throws ERR_CONFIG with every problem and its line. */
export function loadProxySpec(file: string): ProxySpec {
  return loadConfig(file, proxySpec)
}
