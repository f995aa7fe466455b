// What ca.yaml and agent.yaml say of tracing.
import { z } from 'zod'
import type { pathRelativeTo } from '../config.ts'

const isThisMachine = (host: string) => /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/.test(host)

const collector = z.string().superRefine((text, context) => {
  const problem = problemOf(text)
  if (problem !== undefined) context.addIssue({ code: 'custom', message: problem })
})

function problemOf(text: string): string | undefined {
  if (!URL.canParse(text)) return 'is no URL, such as http://127.0.0.1:4318'
  const { protocol, hostname, username, password, search, hash } = new URL(text)
  if (protocol !== 'https:' && protocol !== 'http:') return 'is neither http nor https'
  if (`${username}${password}${search}${hash}` !== '')
    return 'holds more than a host, a port and a path'
  if (protocol === 'http:' && !isThisMachine(hostname))
    return 'is plain HTTP to another machine: spans name identities; use https, or a collector on this machine'
  return undefined
}

export function tracingConfig(path: ReturnType<typeof pathRelativeTo>) {
  return z.strictObject({
    /** an OpenTelemetry collector, OTLP over HTTP; /v1/traces is added. Plain http on this machine only */
    otlp: collector,
    /** PEM of who may vouch for its server; the public authorities when left out */
    roots: path.optional(),
    /** part of the traces that begin here and are recorded, 0 to 1; who calls with a trace decides about that */
    sample: z.number().min(0).max(1).default(1),
  })
}

export type TracingConfig = z.infer<ReturnType<typeof tracingConfig>>
