// Where the Workload API is: SPIFFE Workload Endpoint §4.
import { isIPv4, isIPv6 } from 'node:net'
import { IdentityError } from '../spiffe/errors.ts'

export type Endpoint =
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }

export const endpointVariable = 'SPIFFE_ENDPOINT_SOCKET'

function refuse(text: string, why: string): never {
  throw new IdentityError(
    'ERR_CONFIG',
    `${JSON.stringify(text)} is no Workload API endpoint: ${why}`,
  )
}

function unixEndpoint(text: string): Endpoint {
  const path = text.slice('unix://'.length)
  if (!text.startsWith('unix:///'))
    refuse(text, 'write unix:// and an absolute path, such as unix:///run/castellan/agent.sock')
  if (/[?#%]/.test(path)) refuse(text, 'a query, a fragment and escapes are not accepted')
  if (path.length < 2) refuse(text, 'the path is empty')
  return { kind: 'unix', path }
}

function tcpEndpoint(text: string): Endpoint {
  const match = /^tcp:\/\/(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):(\d{1,5})$/.exec(text)
  const [, v6 = '', v4 = '', digits] = match ?? []
  const port = Number(digits)
  if (!isIPv6(v6) && !isIPv4(v4))
    refuse(text, 'write tcp://IP:PORT, without host name, path or user')
  if (port < 1 || port > 65_535) refuse(text, 'the port is out of range')
  return { kind: 'tcp', host: v6 || v4, port }
}

/** Reads `unix:///path` or `tcp://IP:PORT`. Throws ERR_CONFIG with what is wrong. */
export function parseEndpoint(text: string): Endpoint {
  if (text.startsWith('unix:')) return unixEndpoint(text)
  if (text.startsWith('tcp:')) return tcpEndpoint(text)
  return refuse(text, 'the scheme has to be unix or tcp')
}

/** The configured endpoint, else that of the environment. Throws ERR_CONFIG when neither is set. */
export function endpointFrom(
  configured: string | undefined,
  environment: Readonly<Record<string, string | undefined>>,
): Endpoint {
  const text = configured ?? environment[endpointVariable]
  if (text === undefined || text === '') {
    throw new IdentityError(
      'ERR_CONFIG',
      `no Workload API endpoint: configure one, or set ${endpointVariable} to unix:///path/to/agent.sock`,
    )
  }
  return parseEndpoint(text)
}
