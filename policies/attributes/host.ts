// The host a request is for (`:authority` or Host): compared without regard to case; in strict also
// without its port and its final dot, which name the same host to every backend.
import { isIPv6 } from 'node:net'
import type { Profile } from '../language/mesh.ts'
import { isUnsafe } from './fields.ts'

export interface Host {
  /** byte by byte */
  readonly raw: string
  /** as sent, but in lower case */
  readonly sent: string
  /** strict: without final dot, with the port if one was sent */
  readonly whole: string
  /** strict: without final dot and port */
  readonly name: string
}

const strictGrammar = /^(\[[0-9a-f:.]+\]|[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?)(?::(\d{1,5}))?$/

/** Undefined for control characters, in strict for all that two programs could understand differently. */
export function readHost(text: string, profile: Profile): Host | undefined {
  const sent = text.toLowerCase()
  if (profile === 'istio' && !isUnsafe(text)) return { raw: text, sent, whole: sent, name: sent }
  const match = strictGrammar.exec(sent)
  if (match === null) return undefined
  const [, plain = '', port] = match
  if (Number(port ?? 0) > 65_535) return undefined
  if (plain.startsWith('[') && !isIPv6(plain.slice(1, -1))) return undefined
  const name = plain.replace(/\.$/, '')
  return { raw: text, sent, whole: port === undefined ? name : `${name}:${port}`, name }
}

/** Whether a pattern speaks of a port: a colon outside of the brackets of an IPv6 address. */
export function namesPort(pattern: string): boolean {
  return pattern.includes(':', pattern.lastIndexOf(']') + 1)
}
