// PeerAuthentication as its author writes it: whether a workload takes plaintext.
import { z } from 'zod'
import { istioVersions, metadata, ownVersion, selector } from './metadata.ts'

const mode = z.enum(['UNSET', 'DISABLE', 'PERMISSIVE', 'STRICT']).default('UNSET')
const mtls = z.strictObject({ mode })

export const peerAuthentication = z
  .strictObject({
    apiVersion: z.enum([...istioVersions, ownVersion]),
    kind: z.literal('PeerAuthentication'),
    metadata,
    spec: z
      .strictObject({
        selector: selector.optional(),
        mtls: mtls.optional(),
        portLevelMtls: z
          .record(z.string().regex(/^\d{1,5}$/, 'a port is a number'), mtls)
          .optional(),
      })
      .prefault({}),
    status: z.unknown().optional(),
  })
  .superRefine(({ spec }, context) => {
    const labels = Object.keys(spec.selector?.matchLabels ?? {})
    if (spec.portLevelMtls !== undefined && labels.length === 0) {
      context.addIssue({
        code: 'custom',
        path: ['spec', 'portLevelMtls'],
        message: 'modes of single ports need a selector: ports are those of a workload',
      })
    }
  })

export type PeerAuthenticationDocument = z.infer<typeof peerAuthentication>
