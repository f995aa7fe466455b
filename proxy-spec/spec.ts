// The proxy spec: whom a proxy speaks as, where it listens and whom it expects to meet. One for every proxy: the
// embedded one, and those that the agent drives.
import { z } from 'zod'
import { meshDocument } from '../policies/language/mesh.ts'
import { addressText, loadConfig } from '../runtime/config.ts'
import { authorizers, claimsOf, impassable } from './authorizers.ts'
import { decisionLog, identityHeader, jwksAccess } from './decisions.ts'
import { inbound } from './inbound.ts'
import { outbound } from './outbound.ts'
import { spiffeId } from './words.ts'

export const proxySpec = z
  .strictObject({
    // the Workload API, as unix:///path; SPIFFE_ENDPOINT_SOCKET when left out
    workloadApi: z.string().optional(),
    // which of the workload's SVIDs to use; the first when left out
    identity: spiffeId.optional(),
    identityHeader,
    jwks: jwksAccess(),
    // whom CUSTOM policies ask, by the names of their providers
    authorizers,
    // whose X-Forwarded-For counts, as addresses and CIDR blocks; and how many entries from its right the client is
    trustedProxies: meshDocument.shape.trustedProxies,
    trustedHops: meshDocument.shape.trustedHops,
    decisionLog,
    inbound: z.array(inbound).max(256).default([]),
    outbound: z.array(outbound).max(256).default([]),
  })
  .superRefine((it, context) => {
    const listeners = [...it.inbound, ...it.outbound]
    if (listeners.length === 0) {
      context.addIssue({ code: 'custom', message: 'no listener: name one inbound or outbound' })
    }
    const problem = (message: string) => context.addIssue({ code: 'custom', message })
    for (const place of claimsOf(it.authorizers, it.identityHeader)) {
      context.addIssue({ code: 'custom', path: ['authorizers', ...place], message: impassable })
    }
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
/** Reads `file`. Throws ERR_CONFIG with every problem and its line. */
export function loadProxySpec(file: string): ProxySpec {
  return loadConfig(file, proxySpec)
}
