// ca.yaml, key by key. No default stands for a security decision.
import { z } from 'zod'
import { address, duration, loadConfig, parsedBy, pathRelativeTo } from '../runtime/config.ts'
import { tracingConfig } from '../runtime/tracing/config.ts'
import { parseTrustDomain } from '../spiffe/id.ts'
import { agentPathProblem, usualAgentPath } from './attestors/x509-pop.ts'
import { dnsNamesProblem } from './dns-names.ts'

const trustDomain = parsedBy(parseTrustDomain)

const dnsName = z.string().superRefine((name, context) => {
  const message = dnsNamesProblem([name])
  if (message !== undefined) context.addIssue({ code: 'custom', message })
})

const second = 1000
const floors = { product: 300 * second, development: 2 * second } as const
const longestLeaf = 86_400 * second

/** of the agent ID below /spire/agent */
const agentPath = z
  .string()
  .default(usualAgentPath)
  .superRefine((template, context) => {
    const message = agentPathProblem(template)
    if (message !== undefined) context.addIssue({ code: 'custom', message })
  })

const httpsUrl = z.url({ protocol: /^https$/, error: 'is no https URL' })

function istio(path: ReturnType<typeof pathRelativeTo>) {
  const published = z.strictObject({
    url: httpsUrl,
    /** PEM of who may vouch for that server; the public authorities when left out */
    roots: path.optional(),
    /** whether it may be on a private network or on this machine */
    privateAddress: z.boolean().default(false),
  })
  return z.strictObject({
    /** DNS names for the server's certificate: Istio's agents check the name that they dial */
    serverNames: z.array(dnsName).min(1),
    /** whose tokens are believed */
    tokens: z
      .array(
        z.strictObject({
          /** the `iss` of its tokens */
          issuer: z.string().min(1),
          /** one of them has to be in `aud`; Istio's agents send istio-ca */
          audiences: z.array(z.string().min(1)).min(1),
          /** its public keys, a JWK Set */
          jwks: z.union([z.strictObject({ file: path }), published]),
        }),
      )
      .min(1),
  })
}

function caConfig(file: string) {
  const path = pathRelativeTo(file)
  return z
    .strictObject({
      /** the trust domain this authority signs for, such as example.org */
      trustDomain,
      /** folder of the store and the sealed keys; made by `castellan ca init` */
      state: path,
      /** what opens the sealed keys: a file with a passphrase (a person or a credential store puts it there), or a key file that `ca init` makes */
      unlock: z.union([
        z.strictObject({ passphraseFile: path }),
        z.strictObject({ keyFile: path }),
      ]),
      /** a PostgreSQL that several authorities share, postgres://…; a file in the state folder when left out */
      store: z
        .url({ protocol: /^postgres(ql)?$/, hostname: /.*/, error: 'is no postgres:// URL' })
        .optional(),
      /** gRPC with TLS */
      listen: address.default({ host: '0.0.0.0', port: 8081 }),
      /** unix socket for local administration, mode 0600; ca.sock in the state folder when left out */
      socket: path.optional(),
      /** health and metrics, HTTP */
      operations: address.default({ host: '127.0.0.1', port: 8080 }),
      /** how long an X.509 authority lives; the next one is prepared at half of it, activated at 5/6 */
      authorityLifetime: duration.default(7 * 86_400 * second),
      /** how long SVIDs live whose entry does not say; 5 minutes to 24 hours */
      svidLifetime: duration.default(3600 * second),
      /** how long the SVIDs of agents live: an agent survives an authority that is away for half of it; as svidLifetime when left out */
      agentLifetime: duration.optional(),
      /** how nodes may attest besides join tokens */
      attestors: z
        .strictObject({
          /** nodes with a certificate of their own: PEM file of the authorities that sign those */
          x509pop: z.strictObject({ bundle: path, agentPath }).optional(),
        })
        .default({}),
      /** Istio's certificate service, for Istio's own agents; off when left out */
      istio: istio(path).optional(),
      /** how bundles of other trust domains are fetched from endpoints of the web (https_web) */
      federation: z
        .strictObject({
          /** whether these may be on a private network or on this machine */
          privateAddresses: z.boolean().default(false),
          /** PEM of who may vouch for these; the public authorities when left out */
          roots: path.optional(),
        })
        .prefault({}),
      /** folder of policy files (*.yaml) that is watched and applied */
      policies: path.optional(),
      /** lowers the floor of lifetimes to 2 s; for demonstrations and tests */
      development: z.boolean().default(false),
      /** spans of what takes time, for OpenTelemetry: docs/monitoring; none when left out */
      tracing: tracingConfig(path).optional(),
      logLevel: z.enum(['debug', 'info', 'warn', 'error']).default('info'),
    })
    .superRefine(({ svidLifetime, agentLifetime, authorityLifetime, development }, context) => {
      const floor = development ? floors.development : floors.product
      for (const [key, lifetime] of Object.entries({ svidLifetime, agentLifetime })) {
        if (lifetime === undefined) continue
        if (lifetime < floor || lifetime > longestLeaf) {
          const message = `is not between ${floor / second}s and 24h`
          context.addIssue({ code: 'custom', path: [key], message })
        }
        if (authorityLifetime < lifetime * 6) {
          const message = `is shorter than six times ${key}: leaves would be cut short`
          context.addIssue({ code: 'custom', path: ['authorityLifetime'], message })
        }
      }
    })
}

export type CaConfig = z.infer<ReturnType<typeof caConfig>>

/** Reads ca.yaml; paths in it are relative to its folder. Throws ERR_CONFIG. */
export function loadCaConfig(file: string): CaConfig {
  return loadConfig(file, caConfig(file))
}

/** Milliseconds: what an entry may ask for lies between floor and cap. */
export function lifetimesOf({ svidLifetime, agentLifetime, development }: CaConfig) {
  return {
    default: svidLifetime,
    agent: agentLifetime ?? svidLifetime,
    floor: development ? floors.development : floors.product,
    cap: longestLeaf,
  }
}
