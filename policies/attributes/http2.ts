// An HTTP/2 request as its header block was decoded: read strictly (RFC 9113 §8.2, §8.3).
import { countOf, fieldOf, fieldsProblem } from './fields.ts'

export interface Http2Request {
  readonly method: string
  readonly target: string
  readonly authority: string
  /** names and values in turn, pseudo fields included */
  readonly raw: readonly string[]
}

const pseudo: ReadonlySet<string> = new Set([':method', ':scheme', ':authority', ':path'])
const ofConnection: ReadonlySet<string> = new Set([
  'connection',
  'proxy-connection',
  'keep-alive',
  'transfer-encoding',
  'upgrade',
])

function isMalformed(raw: readonly string[]): boolean {
  let hasPlain = false
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const [name = '', value = ''] = [raw[i], raw[i + 1]]
    if (name.startsWith(':')) {
      if (hasPlain || !pseudo.has(name) || countOf(raw, name) > 1) return true
      continue
    }
    hasPlain = true
    if (name !== name.toLowerCase() || ofConnection.has(name)) return true
    if (name === 'te' && value.trim().toLowerCase() !== 'trailers') return true
    if (fieldsProblem([name, value]) !== undefined) return true
  }
  return false
}

/** Undefined for what is malformed or could be understood in two ways. */
export function readHttp2(raw: readonly string[]): Http2Request | undefined {
  if (isMalformed(raw)) return undefined
  const method = fieldOf(raw, ':method')
  const target = fieldOf(raw, ':path')
  const host = fieldOf(raw, 'host')
  const authority = fieldOf(raw, ':authority') ?? host
  if (method === undefined || target === undefined || authority === undefined) return undefined
  // a path that names a host would outrank the authority that is passed on
  if (!target.startsWith('/')) return undefined
  if (fieldOf(raw, ':scheme') === undefined) return undefined
  if (countOf(raw, 'host') > 1 || (host !== undefined && host !== authority)) return undefined
  return { method, target, authority, raw }
}
