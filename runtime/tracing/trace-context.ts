// Which trace a call belongs to, as W3C Trace Context writes it: one header, `traceparent`.
import { randomBytes } from 'node:crypto'

export interface TraceContext {
  /** 32 hex digits */
  readonly traceId: string
  /** 16 hex digits: who asks */
  readonly spanId: string
  /** whether it is recorded; nobody records a part of a trace */
  readonly isSampled: boolean
}

export const traceHeader = 'traceparent'

export const newTraceId = () => randomBytes(16).toString('hex')
export const newSpanId = () => randomBytes(8).toString('hex')

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
