// One request at the door: who asks, for what, and whether it may pass.
import { type HttpAttributes, isRejection, type Request, readHttp } from '../policies/request.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Connection } from './connections.ts'
import type { Core } from './core.ts'

export type Verdict =
  | {
      readonly kind: 'allowed'
      readonly peer: SpiffeId
      readonly http: HttpAttributes
      readonly request: Request
    }
  | { readonly kind: 'denied' }
  | { readonly kind: 'malformed'; readonly reason: string }

/** `port` is the one at the workload. Throws ERR_UNTRUSTED when the peer is not trusted (any more). */
export function judge(
  { identities, mesh, tally }: Core,
  connection: Connection,
  asked: { readonly method: string; readonly target: string; readonly port: number },
): Verdict {
  const source = connection.peer()
  const id = identities.current()?.svid.id
  const http = readHttp(asked.method, asked.target)
  if (isRejection(http)) return { kind: 'malformed', reason: http.reason }
  if (id === undefined) return { kind: 'denied' }
  const request: Request = { source, destination: { id, port: asked.port }, http }
  if (!tally.allows(mesh.current().policies, request)) return { kind: 'denied' }
  return { kind: 'allowed', peer: source, http, request }
}

/** The decision about a TCP connection. Throws ERR_UNTRUSTED. */
export function judgeTcp(
  { identities, mesh, tally }: Core,
  connection: Connection,
  port: number,
): Request | undefined {
  const source = connection.peer()
  const id = identities.current()?.svid.id
  if (id === undefined) return undefined
  const request: Request = { source, destination: { id, port }, http: undefined }
  return tally.allows(mesh.current().policies, request) ? request : undefined
}
