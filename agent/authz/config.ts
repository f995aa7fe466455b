// What agent.yaml says of the decision socket, key by key.
import { z } from 'zod'
import { meshDocument } from '../../policies/language/mesh.ts'
import { decisionLog, jwksAccess } from '../../proxy-spec/decisions.ts'

export const decisionsConfig = (path: z.ZodType<string>) =>
  z.strictObject({
    /** the socket, mode 0666: who connects is attested, as at the public one */
    socket: path,
    /** decisions as lines of the log */
    decisionLog,
    /** where keys of token issuers may be fetched from (jwksUri of RequestAuthentication) */
    jwks: jwksAccess(path),
    /** whose X-Forwarded-For counts, and how many entries from its right the client is */
    trustedProxies: meshDocument.shape.trustedProxies,
    trustedHops: meshDocument.shape.trustedHops,
  })

export type DecisionsConfig = z.infer<ReturnType<typeof decisionsConfig>>
