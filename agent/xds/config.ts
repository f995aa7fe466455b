// What agent.yaml says of Envoy's secrets, key by key.
import { z } from 'zod'

// names that mean something by themselves cannot be given to something else
const name = z.string().regex(/^(?!spiffe:\/\/)[^*]+$/, 'neither empty nor a SPIFFE ID nor with *')

export const sdsConfig = z
  .strictObject({
    /** asks for the default identity */
    defaultSvidName: name.default('default'),
    /** asks for the roots of the own trust domain */
    defaultBundleName: name.default('ROOTCA'),
    /** asks for the roots of all trust domains that the caller may know */
    defaultAllBundlesName: name.default('ALL'),
    /** validation contexts as a plain list of CAs, for proxies without Envoy's SPIFFE validator */
    plainCa: z.boolean().default(false),
  })
  .refine(
    (it) =>
      new Set([it.defaultSvidName, it.defaultBundleName, it.defaultAllBundlesName]).size === 3,
    'the three names have to differ',
  )

export type SdsConfig = z.infer<typeof sdsConfig>
