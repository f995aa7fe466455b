// Questions as Envoy asks them.
import type { Check } from './deciding.ts'

export interface Asked {
  /** URL-encoded PEM */
  readonly certificate?: string
  /** what Envoy says of the client */
  readonly claims?: string
  /** what Envoy says of itself */
  readonly principal?: string
  readonly port?: number
  readonly from?: string
  readonly method?: string
  readonly host?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly extensions?: Readonly<Record<string, string>>
}

const at = (address: string, port: number) => ({
  address: {
    case: 'socketAddress' as const,
    value: { address, portSpecifier: { case: 'portValue' as const, value: port } },
  },
})

function peersOf(asked: Asked) {
  const { certificate = '', claims = '', principal = '', port = 8443, from = '127.0.0.1' } = asked
  return {
    source: { certificate, principal: claims, address: at(from, 40_000) },
    destination: { principal, address: at('127.0.0.1', port) },
    contextExtensions: { ...asked.extensions },
  }
}

/** About a connection. */
export const tcp = (asked: Asked = {}): Check => ({
  attributes: { ...peersOf(asked), request: {} },
})

/** About a request, with what Envoy adds to every one. */
export function rpc(path: string, asked: Asked = {}): Check {
  const { method = 'GET', host = 'payments.shop' } = asked
  const headers = {
    ':method': method,
    ':path': path,
    ':authority': host,
    ':scheme': 'https',
    'x-forwarded-proto': 'https',
    'x-request-id': 'c1f2',
    ...asked.headers,
  }
  const http = { id: '1', method, path, host, headers, protocol: 'HTTP/1.1' }
  return { attributes: { ...peersOf(asked), request: { http } } }
}
