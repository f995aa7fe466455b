// What agent.yaml says of the proxies that this agent drives.
import { z } from 'zod'

export function drivenProxies(path: z.ZodType<string, string>) {
  return z
    .array(
      z.strictObject({
        // the proxy spec; an edit of it is taken up while the agent runs
        spec: path,
        // grpc: programs that do without a proxy: docs/grpc.md
        driver: z.enum(['envoy', 'grpc']),
        // native: the proxy decides alone where it can do that soundly; agent: this agent decides about each
        // request, and so knows and explains every denial; needs `decisions`
        decisions: z.enum(['native', 'agent']).default('native'),
      }),
    )
    .max(256)
    .default([])
}

export type DrivenProxies = z.infer<ReturnType<typeof drivenProxies>>
export type DriverName = DrivenProxies[number]['driver']
