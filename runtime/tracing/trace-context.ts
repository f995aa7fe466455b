// Which trace a call belongs to, as W3C Trace Context writes it: one header, `traceparent`.
import { randomFillSync } from 'node:crypto'

export interface TraceContext {
  /** 32 hex digits */
  readonly traceId: string
  /** 16 hex digits: who asks */
  readonly spanId: string
  /** whether it is recorded; nobody records a part of a trace */
  readonly isSampled: boolean
}

export const traceHeader = 'traceparent'

// filled as a whole: a call for eight bytes costs more than the rest of a span
const pool = Buffer.alloc(8192)
let used = pool.length

function randomHex(bytes: number): string {
  if (used + bytes > pool.length) {
    randomFillSync(pool)
    used = 0
  }
  used += bytes
  return pool.toString('hex', used - bytes, used)
}

export const newTraceId = () => randomHex(16)
export const newSpanId = () => randomHex(8)

export function traceparentOf({ traceId, spanId, isSampled }: TraceContext): string {
  return `00-${traceId}-${spanId}-${isSampled ? '01' : '00'}`
}

/** Undefined for what is none: then a trace begins here (§4.3). */
export function parseTraceparent(text: string): TraceContext | undefined {
  const [, version, traceId, spanId, flags, more] =
    /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/.exec(text) ?? []
  if (traceId === undefined || spanId === undefined || flags === undefined) return undefined
  // later versions may say more behind what this one says
  if (version === 'ff' || (version === '00' && more !== undefined)) return undefined
  if (/^0+$/.test(traceId) || /^0+$/.test(spanId)) return undefined
  return { traceId, spanId, isSampled: (Number.parseInt(flags, 16) & 1) === 1 }
}
