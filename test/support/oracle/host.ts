// Hosts: Istio compares the whole value, strict its parts (rows 56-65).
import { isIPv6 } from 'node:net'

/** `whole` is what a pattern with a colon is compared with, `part` what one without; lower case. */
export interface HostReading {
  readonly whole: string
  readonly part: string
}

interface HostAndPort {
  readonly name: string
  /** with its colon; empty when there is none */
  readonly port: string
}

/** undefined: strict refuses it with 400. A name has no empty label; one final dot is none. */
export function splitHost(sent: string): HostAndPort | undefined {
  const found = /^(\[[^[\]]*\]|(?:[A-Za-z0-9_-]+\.)*[A-Za-z0-9_-]+\.?)(:\d{1,5})?$/.exec(sent)
  if (found === null) return undefined
  const [, name = '', port = ''] = found
  if (name.startsWith('[') && !isIPv6(name.slice(1, -1))) return undefined
  if (name.includes('%') || Number(port.slice(1)) > 65_535) return undefined
  return { name, port }
}

/** Whether a pattern names a port: the colons of an IPv6 address in brackets do not. */
export const hasPort = (pattern: string): boolean => pattern.replace(/^.*\]/, '').includes(':')

export function asSent(sent: string): HostReading {
  const whole = sent.toLowerCase()
  return { whole, part: whole }
}

/** The parts of a host that `splitHost` takes: without port, one final dot cut. */
export function inParts({ name, port }: HostAndPort): HostReading {
  const part = name.toLowerCase().replace(/\.$/, '')
  return { whole: `${part}${port}`, part }
}
