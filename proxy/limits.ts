// What a peer, a workload or a local program can make this process hold, at most (invariant 7).
import type { InboundSpec } from '../proxy-spec/inbound.ts'

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
  /** an answer that has begun, or a tunnel, without a byte; 0 is for ever */
  readonly stall: number
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
  // streams and tunnels may well be silent for hours
  stall: 0,
  halfOpen: 600_000,
  connect: 5_000,
  drain: 5_000,
  recheck: 1_000,
}

/** The limits of one inbound listener: its own where it has some. */
export function withLimits(limits: Limits, own: InboundSpec['limits']): Limits {
  const { connections, streams, headerBytes, headers, requestHeaders, idle } = own
  const stall = idle ?? limits.stall
  return {
    ...limits,
    connections: connections ?? limits.connections,
    streams: streams ?? limits.streams,
    headerBytes: headerBytes ?? limits.headerBytes,
    headers: headers ?? limits.headers,
    requestHeaders: requestHeaders ?? limits.requestHeaders,
    idle: idle ?? limits.idle,
    stall,
    halfOpen: stall === 0 ? limits.halfOpen : Math.min(limits.halfOpen, stall),
  }
}
