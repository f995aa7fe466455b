// The shop of td.example, where most tests of a sidecar happen: web calls payments, each behind its sidecar.
import { type ClientHttp2Session, connect } from 'node:http2'
import type { TLSSocket } from 'node:tls'
import { contextFor, createTestSource, makeTestAuthority } from './mesh.ts'
import { type Dialled, dial, peerOptions, untilClosed } from './sidecar.ts'

export const payments = 'spiffe://td.example/ns/shop/sa/payments'
export const web = 'spiffe://td.example/ns/shop/sa/web'
export const authority = makeTestAuthority('td.example')
export const webSvid = authority.issue(web)

/** Whom web expects. */
export const server = { authority, id: payments }

/** What a sidecar of that identity lives on. */
export const sourceOf = (id: string) =>
  createTestSource(contextFor(authority.issue(id), authority.bundle))

/** A listener before the workload on that port: HTTP over mutual TLS when nothing else is said. */
export const inboundTo = (port: number, more: object = {}) => ({
  ...{ listen: '127.0.0.1:0', protocol: 'http', forwardTo: `127.0.0.1:${port}` },
  ...more,
})

/** A listener that leads to payments and nobody else. */
export const outboundTo = (destination: string | readonly string[], more: object = {}) => ({
  ...{ listen: '127.0.0.1:0', protocol: 'http', destination, expect: [payments] },
  ...more,
})

/** A connection to payments, as web when nobody else is named. */
export const dialPayments = (
  port: number,
  svid = webSvid,
  more: Partial<Dialled> = {},
): Promise<TLSSocket> => dial({ ...peerOptions(port, svid, server), ...more })

/** The same for HTTP/2. */
export async function openSession(port: number, svid = webSvid): Promise<ClientHttp2Session> {
  const socket = await dialPayments(port, svid, { ALPNProtocols: ['h2'] })
  const session = connect('https://shop', { createConnection: () => socket })
  session.on('error', () => {})
  return session
}

/** All that comes back for these bytes until the connection is closed. */
export async function askPayments(
  port: number,
  text: string,
  svid = webSvid,
  more: Partial<Dialled> = {},
): Promise<string> {
  const socket = await dialPayments(port, svid, more)
  const answer = untilClosed(socket)
  socket.write(text, 'latin1')
  return await answer
}
