// The workloads that are known to be there, as `castellan policy check --workloads` reads them.
import { z } from 'zod'
import { namespaceOf } from '../../policies/attributes/request.ts'
import type { Workload } from '../../policies/lint/ground.ts'
import { parseConfig } from '../../runtime/config.ts'
import { isSpiffeId } from '../../spiffe/id.ts'

const id = z
  .string()
  .transform((text, context) => {
    if (isSpiffeId(text)) return text
    context.addIssue({ code: 'custom', message: 'no SPIFFE ID: write spiffe://TRUST-DOMAIN/PATH' })
    return z.NEVER
  })
  .optional()

const workload = z
  .strictObject({
    // its SPIFFE ID; the namespace is read off it when it is not given
    id,
    namespace: z.string().min(1).optional(),
    labels: z.record(z.string(), z.string()).default({}),
    // ports on which it speaks no HTTP
    tcp: z.array(z.int().min(1).max(65_535)).default([]),
  })
  .transform(
    (it): Workload => ({
      id: it.id,
      namespace: it.namespace ?? (it.id === undefined ? 'default' : namespaceOf(it.id)),
      labels: it.labels,
      tcp: it.tcp,
    }),
  )

const workloads = z.strictObject({ workloads: z.array(workload) })

/** Throws ERR_CONFIG with file, line and field. */
export function readWorkloads(text: string, file: string): readonly Workload[] {
  return parseConfig(text, file, workloads).workloads
}
