// The route to the workload behind this sidecar: plain, on this machine, connections kept.
import { Agent } from 'node:http'
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2'
import { connect } from 'node:net'
import { type Address, addressText } from '../runtime/config.ts'
import type { Route } from './onward.ts'

export interface OwnedRoute extends Route, Disposable {}

/** One session that is made when it is needed and made again when it has ended. */
export function keptSession(
  open: () => ClientHttp2Session,
): { current(): ClientHttp2Session } & Disposable {
  let session: ClientHttp2Session | undefined
  return {
    current() {
      if (session === undefined || session.closed || session.destroyed) {
        session = open()
        // each stream of it fails by itself
        session.on('error', () => {})
      }
      return session
    },
    [Symbol.dispose]: () => session?.destroy(),
  }
}

export function workloadRoute(address: Address): OwnedRoute {
  const pooled = new Agent({ keepAlive: true })
  const single = new Agent({ keepAlive: false })
  const session = keptSession(() =>
    connectHttp2(`http://${addressText(address)}`, {
      createConnection: () => connect({ ...address, noDelay: true }),
    }),
  )
  return {
    ...address,
    pooled,
    single,
    session: async () => session.current(),
    peerOf: () => undefined,
    [Symbol.dispose]() {
      pooled.destroy()
      single.destroy()
      session[Symbol.dispose]()
    },
  }
}
