// What is spoken on an inbound listener once a connection is let in: bytes, HTTP, or HTTP/2 alone for gRPC.

import { connect, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { InboundSpec } from '../proxy-spec/inbound.ts'
import { type Address, addressText } from '../runtime/config.ts'
import { IdentityError } from '../spiffe/errors.ts'
import type { Connection, Retirement } from './connections.ts'
import type { Core } from './core.ts'
import type { Door } from './door.ts'
import { http1Server } from './http1.ts'
import { http2Server } from './http2.ts'
import { type Arrived, arrivalOf, inboundDoor } from './inbound-door.ts'
import { judgeTcp } from './judge.ts'
import { type Route, soleRoute } from './onward.ts'
import { isTlsSide, pipeBoth, pipeToWorkload, plainSide, type Side } from './pipe.ts'
import { workloadRoute } from './workload-route.ts'

export interface Protocol extends Disposable {
  readonly alpn: readonly string[]
  /** Takes a connection over. Throws ERR_BAD_REQUEST when it does not speak what is spoken here. */
  serve(arrived: Arrived): void
  retire(why: Retirement, side: Side, connection: Connection): void
}

function openTunnel(side: Side, address: Address, core: Core): Socket {
  if (isTlsSide(side)) return pipeToWorkload(side, address, core.limits)
  const workload = connect({ ...address, allowHalfOpen: true, noDelay: true })
  pipeBoth(side, plainSide(workload), core.limits)
  return workload
}

function tcpProtocol(core: Core, spec: InboundSpec): Protocol {
  const { forwardTo } = spec
  const { limits } = core
  return {
    alpn: [],
    serve(arrived) {
      const { side, connection } = arrived
      const request = judgeTcp(core, arrivalOf(arrived, spec))
      if (request === undefined) return side.break()
      side.socket.once('close', connection.begin({ request, end: side.break }))
      // bytes of either direction pass through it
      if (limits.stall > 0) side.socket.setTimeout(limits.stall, side.break)
      const workload = openTunnel(side, forwardTo, core)
      workload.setTimeout(limits.connect, () => workload.destroy())
      workload.once('connect', () => workload.setTimeout(0))
      workload.once('error', (error) => {
        core.tally.failed()
        core.log.warn({ err: error, workload: addressText(forwardTo) }, 'connection failed')
      })
    },
    retire(why, side) {
      // at shutdown it may finish; of age it ends here, for bytes have no better moment
      if (why === 'age') side.break()
    },
    [Symbol.dispose]() {},
  }
}

function httpProtocol(core: Core, spec: InboundSpec): Protocol {
  const route = workloadRoute(spec.forwardTo)
  const onward = soleRoute<Route>(route)
  const doors = new WeakMap<object, Door>()
  const sessions = new WeakMap<Duplex, { close(): void }>()
  const find = (connection: object) => doors.get(connection)
  const http1 = http1Server(core, find)
  const http2 = http2Server(core, find)
  // it never listens itself, but its timers for slow headers start with this event
  http1.emit('listening')
  return {
    alpn: spec.protocol === 'grpc' ? ['h2'] : ['h2', 'http/1.1'],
    serve(arrived) {
      const { socket } = arrived.side
      if (spec.protocol === 'grpc' && !arrived.isHttp2)
        throw new IdentityError('ERR_BAD_REQUEST', 'HTTP/2 alone is spoken here')
      const door = inboundDoor({ core, spec, onward, arrived })
      doors.set(socket, door)
      if (!arrived.isHttp2) {
        http1.emit('connection', socket)
        // one in the clear was stopped to see what it begins with
        if (socket.isPaused()) socket.resume()
        return
      }
      http2.once('session', (session) => {
        doors.set(session, door)
        sessions.set(socket, session)
      })
      http2.emit('connection', socket)
    },
    retire(why, { socket }, connection) {
      const session = sessions.get(socket)
      if (session !== undefined) session.close()
      else if (why === 'shutdown' && !connection.busy) socket.destroySoon()
    },
    [Symbol.dispose]() {
      http1.close()
      http2.close()
      route[Symbol.dispose]()
    },
  }
}

export function inboundProtocol(core: Core, spec: InboundSpec): Protocol {
  return spec.protocol === 'tcp' ? tcpProtocol(core, spec) : httpProtocol(core, spec)
}
