// Names of header fields: what passes from one side to the other, and what never does.

/** Who the peer is, as its verified certificate says: set by this proxy alone, on both sides. */
export const peerIdHeader = 'x-spiffe-peer-id'

// RFC 9110 §7.6.1 and its older relatives; framing and host are set by who forwards
export const hopByHop: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'proxy-authenticate',
  'proxy-authorization',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'http2-settings',
])

// what a peer could claim about itself or its way here
const claims: ReadonlySet<string> = new Set([
  'x-forwarded-client-cert',
  'x-forwarded-for',
  peerIdHeader,
])

// set by who forwards a request, from what the parser has understood
export const ownInRequests: ReadonlySet<string> = new Set(['host', 'content-length', 'expect'])

// applications that fold `_` and `-` (CGI) would take x_spiffe_peer_id for ours
export const isClaim = (name: string) =>
  claims.has(name) || name.startsWith('x-envoy-') || name.includes('_')

/** Whether a field of this name (lower case) is ever taken from one side to the other. */
export function mayPass(name: string): boolean {
  return !(name.startsWith(':') || hopByHop.has(name) || isClaim(name) || ownInRequests.has(name))
}
