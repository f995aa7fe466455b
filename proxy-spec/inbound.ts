// An inbound listener: where peers connect, and the workload behind it.
import { z } from 'zod'
import { backend } from '../policies/language/mesh.ts'
import { address, duration } from '../runtime/config.ts'
import { listenerName, protocol, refuseForTcp, serviceName, waiting } from './words.ts'

const limits = z
  .strictObject({
    // connections at once
    connections: z.int().min(1).max(1_000_000).optional(),
    // HTTP/2 streams of one connection at once
    streams: z.int().min(1).max(10_000).optional(),
    // of a request, all of them together
    headerBytes: z.int().min(1024).max(65_536).optional(),
    headers: z.int().min(8).max(1000).optional(),
    // until the fields of a request have come
    requestHeaders: waiting.optional(),
    // a connection without a request, or without a byte in an answer that has begun
    idle: waiting.optional(),
  })
  .prefault({})

export const inbound = z
  .strictObject({
    // in logs; inbound-0, inbound-1, … when left out
    name: listenerName.optional(),
    // where peers connect, with mutual TLS
    listen: address,
    protocol,
    // strict: nothing but mutual TLS; permissive: plaintext too, which has no identity; off: plaintext only
    mtls: z.enum(['strict', 'permissive', 'off']).default('strict'),
    // the workload; its port is the destination port that policies see
    forwardTo: address,
    // how the workload reads paths: policies take its readings into account
    backend: backend.optional(),
    // a connection is ended after this; half the life of the own SVID when left out, a quarter with Envoy; never more
    maxConnectionAge: duration.optional(),
    // GET and HEAD of exactly this path pass without a decision, for whoever has passed `mtls`
    healthPath: z
      .string()
      .regex(/^(?:\/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+$/, 'a plain path such as /healthz')
      .optional(),
    // of bytes: the workload speaks before its client does (MySQL, SMTP)
    serverFirst: z.boolean().default(false),
    limits,
    // whose endpoint this is: told to the authority, for outbound listeners that name the service
    service: serviceName.optional(),
    // where others reach it; `listen` when left out
    advertise: address.optional(),
  })
  .superRefine((it, context) => {
    const { healthPath, backend: reads } = it
    const { streams, headerBytes, headers, requestHeaders } = it.limits
    refuseForTcp(it, { healthPath, backend: reads }, context)
    if (streams ?? headerBytes ?? headers ?? requestHeaders) refuseForTcp(it, { limits }, context)
    const problem = (path: string, message: string) =>
      context.addIssue({ code: 'custom', path: [path], message })
    if (it.serverFirst && it.protocol !== 'tcp')
      problem('serverFirst', 'has a meaning with protocol: tcp alone')
    if (it.advertise !== undefined && it.service === undefined)
      problem('advertise', 'is of no use without service')
    if (it.service !== undefined && it.mtls === 'off')
      problem('service', 'whoever calls a service does so by mutual TLS: mtls is off')
    const { host, port } = it.advertise ?? it.listen
    if (it.service !== undefined && anyAddress.has(host))
      problem('advertise', `nobody can connect to ${host}:${port}: say where others reach it`)
  })

const anyAddress: ReadonlySet<string> = new Set(['0.0.0.0', '::'])

export type InboundSpec = Readonly<z.infer<typeof inbound>>
