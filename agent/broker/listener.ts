// Where brokers connect: mutual TLS with the agent's own SVID, on a unix socket or an address.
import type { Socket } from 'node:net'
import { dirname } from 'node:path'
import { TLSSocket } from 'node:tls'
import { privateFolder } from '../../runtime/durable.ts'
import { reflectionServices } from '../../runtime/grpc/reflection.ts'
import { type GrpcServer, startGrpcServer } from '../../runtime/grpc/server.ts'
import { every } from '../../runtime/lifecycle.ts'
import { peerChain, secureContext, serverTls } from '../../runtime/tls-server.ts'
import { type Presented, presentedOf } from '../../spiffe/deny-list.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import type { TrustDomain } from '../../spiffe/id.ts'
import { verifySvid } from '../../spiffe/svid.ts'
import { readingOf } from '../audience.ts'
import type { Core } from '../core.ts'
import type { AgentSvid } from '../own-svid.ts'
import type { Serving } from '../serving.ts'
import { authorizeBroker, type BrokerPeer, brokerDetails, brokerService } from './service.ts'

interface Peer extends BrokerPeer {
  readonly presented: Presented
  readonly chain: readonly Uint8Array[]
}

const lookEvery = 1000

function ownSvid({ session }: Core): AgentSvid {
  const { svid } = session.status()
  if (svid !== undefined) return svid
  throw new IdentityError('ERR_UNAVAILABLE', 'this node has not joined yet')
}

/** Verified against the bundle of its own trust domain, federated ones included. */
function verified(chain: readonly Uint8Array[], { knowledge, clock }: Core) {
  const bundles = (name: TrustDomain) =>
    name === knowledge.bundle().trustDomain
      ? knowledge.bundle()
      : knowledge.federated().get(name)?.x509
  return verifySvid(chain, bundles, { now: clock.now() })
}

function peerOf(socket: Socket, core: Core): Peer {
  if (!(socket instanceof TLSSocket)) throw new IdentityError('ERR_UNTRUSTED', 'no TLS')
  const chain = peerChain(socket)
  const svid = verified(chain, core)
  return { id: svid.id, presented: presentedOf(svid), chain }
}

/** Whether a connection that was good is so no more: expired, denied, or of a trust domain that is gone. */
function isOver({ presented, chain }: Peer, core: Core): boolean {
  if (core.knowledge.revocation().denyList.against(presented, core.clock.now())) return true
  try {
    verified(chain, core)
    return false
  } catch {
    return true
  }
}

/** Starts when the configuration asks for it; this node has to have joined. */
export async function startBroker(
  core: Core,
  { entitled, x509, jwt, references }: Serving,
): Promise<AsyncDisposable> {
  const { config, clock, log } = core
  const stack = new AsyncDisposableStack()
  if (config.broker === undefined) return stack
  const { socket, listen, brokers: ids } = config.broker
  const brokers = new Set(ids)
  const at = socket === undefined ? listen : { path: socket, mode: 0o600 }
  if (at === undefined) return stack
  const isLocal = socket !== undefined
  if (isLocal) privateFolder(dirname(socket))
  const api = brokerService({ entitled, x509, jwt, references, brokers, isLocal })
  let svid = ownSvid(core)
  const server: GrpcServer<Peer> = await startGrpcServer<Peer>({
    listen: at,
    tls: serverTls(svid),
    services: [api, ...reflectionServices<Peer>([api.descriptor])],
    peer: (connection) => peerOf(connection, core),
    authorize: authorizeBroker(brokers),
    details: brokerDetails,
    reading: readingOf(log, ({ id }) => ({ broker: id })),
    clock,
  })
  stack.use(server)
  stack.use(core.audience.carry(server))
  stack.use(
    every(clock, lookEvery, () => {
      server.disconnect((peer) => isOver(peer, core))
      const next = ownSvid(core)
      if (next.serial === svid.serial) return
      svid = next
      server.setTls(secureContext(svid))
    }),
  )
  return stack
}
