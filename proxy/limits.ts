// What a peer, a workload or a local program can make this process hold, at most (invariant 7).

export interface Limits {
  readonly headerBytes: number
  readonly headers: number
  /** concurrent HTTP/2 streams of one connection */
  readonly streams: number
  /** connections of one listener */
  readonly connections: number
  /** milliseconds, all of them */
  readonly handshake: number
  readonly requestHeaders: number
  /** a kept connection without request */
  readonly idle: number
  /** a tunnel of which one direction is over, without a byte in the other */
  readonly halfOpen: number
  /** TCP and TLS to the other side */
  readonly connect: number
  /** what is in flight may take this long at shutdown */
  readonly drain: number
  /** how often live connections are looked at for expiry and age */
  readonly recheck: number
}

export const defaultLimits: Limits = {
  headerBytes: 16 * 1024,
  headers: 100,
  streams: 100,
  connections: 10_000,
  handshake: 5_000,
  requestHeaders: 5_000,
  idle: 65_000,
  halfOpen: 600_000,
  connect: 5_000,
  drain: 5_000,
  recheck: 1_000,
}
