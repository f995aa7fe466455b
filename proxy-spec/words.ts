// What the parts of a proxy spec are written in.
import { z } from 'zod'
import { address, duration, parsedBy } from '../runtime/config.ts'
import { parseSpiffeId } from '../spiffe/id.ts'

export const spiffeId = parsedBy(parseSpiffeId)

/**
 * http: HTTP/1.1 and HTTP/2, each request decided; grpc: HTTP/2 only, to the workload too; tcp: bytes, decided
 * once per connection.
 */
export const protocol = z.enum(['http', 'grpc', 'tcp'])

export const listenerName = z
  .string()
  .regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'a name has a-z, 0-9 and hyphens, at most 63')

/** Of a service, as outbound listeners and `services:` of agent.yaml know it. */
export const serviceName = z
  .string()
  .regex(/^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$/, 'letters, digits, dots, hyphens and _')

/** A duration in milliseconds that is neither nothing nor longer than a day. */
export const waiting = duration.refine((ms) => ms >= 1 && ms <= 86_400_000, 'from 1ms to 1d')

/** One address, or several. */
export const addresses = z.union([
  address.transform((one) => [one]),
  z.array(address).min(1, 'name at least one address').max(256),
])

/** What has no meaning for bytes is refused, not ignored. */
export function refuseForTcp(
  it: { readonly protocol: string },
  fields: Readonly<Record<string, unknown>>,
  context: z.core.$RefinementCtx,
): void {
  if (it.protocol !== 'tcp') return
  for (const [field, value] of Object.entries(fields)) {
    if (value === undefined) continue
    context.addIssue({
      code: 'custom',
      path: [field],
      message: 'has no meaning with protocol: tcp',
    })
  }
}
