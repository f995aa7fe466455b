// What the package `castellan` gives to other programs, name by name; docs/library.md shows how to use it.

export { type ErrorCode, explain, hasCode, IdentityError } from '../spiffe/errors.ts'
export {
  isBelow,
  isMemberOf,
  isSpiffeId,
  parseSpiffeId,
  parseTrustDomain,
  pathOf,
  type SpiffeId,
  spiffeIdOf,
  type TrustDomain,
  trustDomainOf,
} from '../spiffe/id.ts'
export type { JwtSvid } from '../spiffe/jwt-svid.ts'
export { type Matcher, matchAny, matchId, matchMemberOf, matchOneOf } from '../spiffe/match.ts'
export { type Endpoint, endpointFrom, parseEndpoint } from './endpoint.ts'
export { createFetch, type Fetch, type FetchInit, type FetchOptions } from './fetch.ts'
export type { Followed, SourceOptions } from './followed.ts'
export {
  type FetchTokenOptions,
  type JwtBundles,
  type JwtSource,
  type OwnJwtSvid,
  startJwtSource,
  type ValidatedToken,
  type VerifyTokenOptions,
  type WaitOptions,
} from './jwt-source.ts'
export { peerIdOf } from './peer.ts'
export { type ConnectOptions, connectTls, type TlsConnection } from './tls-connect.ts'
export type { ServerOptions } from './tls-gate.ts'
export {
  createHttpServer,
  startTlsServer,
  type TlsServer,
  type TlsServerOptions,
} from './tls-server.ts'
export {
  type OwnSvid,
  pickByHint,
  pickById,
  type SvidPicker,
  startX509Source,
  type X509Context,
  type X509Source,
} from './x509-source.ts'
