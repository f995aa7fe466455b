// agent.yaml, key by key.
import { z } from 'zod'
import { address, loadConfig, parsedBy, pathRelativeTo } from '../runtime/config.ts'
import { tracingConfig } from '../runtime/tracing/config.ts'
import { parseSpiffeId, parseTrustDomain } from '../spiffe/id.ts'
import { attestorsConfig } from './attest/config.ts'
import { decisionsConfig } from './authz/config.ts'
import { agentFileSets } from './files/config.ts'
import { type DrivenProxies, drivenProxies } from './proxies/config.ts'
import { sdsConfig } from './xds/config.ts'

const trustDomain = parsedBy(parseTrustDomain)
const spiffeId = parsedBy(parseSpiffeId)

const pin = z
  .string()
  .regex(
    /^sha256:[0-9a-fA-F]{64}$/,
    'a pin is sha256: and 64 hex digits, as `castellan bundle show` prints it',
  )
  .transform((text) => text.slice('sha256:'.length).toLowerCase())

/** host:port, as text: it travels to the sidecars. */
const serviceAddress = z.string().superRefine((text, context) => {
  const problem = address.safeParse(text).error?.issues[0]?.message
  if (problem !== undefined) context.addIssue({ code: 'custom', message: problem })
})

interface Sockets {
  readonly socket: string
  readonly adminSocket: string
  readonly decisions?: { readonly socket: string } | undefined
}

function separateSockets(
  { socket, adminSocket, decisions }: Sockets,
  context: z.core.$RefinementCtx,
): void {
  const folder = (of: string) => of.slice(0, of.lastIndexOf('/'))
  const problem = (message: string, ...path: string[]) =>
    context.addIssue({ code: 'custom', path, message })
  const open = [socket, ...(decisions === undefined ? [] : [decisions.socket])]
  if (open.some((it) => `${folder(adminSocket)}/`.startsWith(`${folder(it)}/`))) {
    problem(
      'lies in the folder of the public socket, or below it: who can reach one could reach the other',
      'adminSocket',
    )
  }
  if (decisions?.socket === socket)
    problem('is the public socket: decisions need one of their own', 'decisions', 'socket')
}

interface Deciding {
  readonly proxies: DrivenProxies
  readonly decisions?: object | undefined
}

function answeringWhereAsked(
  { proxies, decisions }: Deciding,
  context: z.core.$RefinementCtx,
): void {
  if (decisions !== undefined) return
  for (const [i, it] of proxies.entries()) {
    const path = ['proxies', i, 'decisions']
    const message = 'agent: nobody answers without the key `decisions` of this file'
    if (it.decisions === 'agent') context.addIssue({ code: 'custom', path, message })
  }
}

function agentConfig(file: string) {
  const path = pathRelativeTo(file)
  return z
    .strictObject({
      /** the trust domain that the authority has to be of */
      trustDomain,
      authority: z
        .strictObject({
          /** a castellan authority, or a stock spire-server: that one is asked every five seconds */
          kind: z.enum(['castellan', 'spire']).default('castellan'),
          /** host:port of the authority's gRPC listener; a list where several share a store */
          address: z.union([address.transform((one) => [one]), z.array(address).min(1)]),
          /** PEM file of the trust bundle to believe at the first start */
          bundle: path.optional(),
          /** or the fingerprint of one of its certificates */
          pin: pin.optional(),
        })
        .refine(
          (it) => (it.bundle === undefined) !== (it.pin === undefined),
          'give either bundle or pin: the authority is never trusted unseen',
        ),
      /** file with the join token; read only as long as the agent has no identity */
      joinTokenFile: path.optional(),
      /** or a certificate that this node already has: it joins and renews by it */
      x509pop: z.strictObject({ certificate: path, key: path }).optional(),
      /** folder of the agent's own SVID, key and bundle */
      state: path,
      /** Workload API and sidecar socket, mode 0777 */
      socket: path,
      /** administration socket, mode 0600; in another folder than `socket` */
      adminSocket: path,
      /** host:port of /livez, /readyz and /metrics, by HTTP; nobody listens when left out */
      operations: address.optional(),
      /** addresses of services, by the names that proxy specs use */
      services: z.record(z.string(), z.array(serviceAddress).min(1)).default({}),
      /** how processes are told apart; by user, groups and program when left out */
      attestors: attestorsConfig(path),
      /** files of SVIDs for programs that cannot ask: docs/files.md */
      files: agentFileSets(path),
      /** what one user of the node may take of the public socket; others are served meanwhile */
      limits: z
        .strictObject({
          /** connections at once; each takes two file descriptors */
          connections: z.int().min(1).max(100_000).default(4096),
          /** new calls each second, in the long run */
          callsPerSecond: z.int().min(1).max(1_000_000).default(500),
          /** new calls at once, after a while without any */
          callsAtOnce: z.int().min(1).max(1_000_000).default(10_000),
        })
        .prefault({}),
      /** proxies of this node that this agent drives: docs/proxies.md */
      proxies: drivenProxies(path),
      /** Envoy's secrets */
      sds: sdsConfig.prefault({}),
      /** answers proxies that ask whether a request may pass; nobody listens when left out */
      decisions: decisionsConfig(path).optional(),
      /** serve what the standards call incubating: the WIT profile */
      incubating: z.boolean().default(false),
      /** who has no identity gets the bundles all the same, and may have tokens validated */
      verifiersWithoutIdentity: z.boolean().default(false),
      /** SPIFFE IDs that may ask for the identities of others, at the administration socket */
      delegates: z.array(spiffeId).default([]),
      /** the SPIFFE Broker API, by mutual TLS; needs `incubating: true` */
      broker: z
        .strictObject({
          /** a unix socket, mode 0600 */
          socket: path.optional(),
          /** or host:port; there no process can be referred to */
          listen: address.optional(),
          /** SPIFFE IDs that may ask */
          brokers: z.array(spiffeId).min(1),
        })
        .refine(
          (it) => (it.socket === undefined) !== (it.listen === undefined),
          'give either socket or listen',
        )
        .optional(),
      /** spans of what takes time, for OpenTelemetry: docs/monitoring; none when left out */
      tracing: tracingConfig(path).optional(),
      logLevel: z.enum(['debug', 'info', 'warn', 'error']).default('info'),
    })
    .refine(
      ({ joinTokenFile, x509pop }) => joinTokenFile === undefined || x509pop === undefined,
      'give either joinTokenFile or x509pop',
    )
    .refine(({ broker, incubating }) => broker === undefined || incubating, {
      path: ['broker'],
      message: 'the Broker API is incubating: say incubating: true as well',
    })
    .superRefine(separateSockets)
    .superRefine(answeringWhereAsked)
}

export type AgentConfig = z.infer<ReturnType<typeof agentConfig>>

/** Reads agent.yaml; paths in it are relative to its folder. Throws ERR_CONFIG. */
export function loadAgentConfig(file: string): AgentConfig {
  return loadConfig(file, agentConfig(file))
}
