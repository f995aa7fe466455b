// WebSocket: decided like any request, and opened only by the other side's own 101. Until then not one
// byte behind the request is passed on.
import { type IncomingMessage, STATUS_CODES, request as send } from 'node:http'
import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { fieldOf } from '../policies/attributes/fields.ts'
import type { Core } from './core.ts'
import { type Doors, isRefusal, type Passage, type Refusal, settle, unreachable } from './door.ts'
import { hostOf, passingRequest, passingResponse } from './headers.ts'
import { pipeBoth, type Side } from './pipe.ts'

type Part = Pick<Core, 'limits' | 'log' | 'tally' | 'identityHeader'>

export interface Upgrade {
  readonly request: IncomingMessage
  readonly socket: Duplex
  /** what the client sent behind its request */
  readonly head: Buffer
}

function head(status: number, headers: readonly string[]): string {
  let text = `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\n`
  for (let i = 0; i + 1 < headers.length; i += 2) text += `${headers[i]}: ${headers[i + 1]}\r\n`
  return `${text}\r\n`
}

function refuse(socket: Duplex, { status, text, headers = {} }: Refusal): void {
  const body = `${text}\n`
  const own = ['content-type', 'text/plain', 'content-length', String(body.length)]
  const given = Object.entries(headers).flatMap(([name, values]) =>
    [values].flat().flatMap((value) => [name, value]),
  )
  const all = [...given, ...own, 'connection', 'close']
  socket.end(head(status, all) + body, () => socket.destroy())
}

function fields(core: Part, incoming: IncomingMessage, { route, downstream }: Passage): string[] {
  const peer = route.peerOf(incoming.socket)
  const kept = [...passingResponse(incoming.rawHeaders, core), ...downstream]
  return peer === undefined ? kept : [...kept, core.identityHeader, peer]
}

/** The other side declined: its answer is passed on, and the connection ends. */
function decline({ socket }: Upgrade, incoming: IncomingMessage, kept: readonly string[]): void {
  socket.write(head(incoming.statusCode ?? 502, [...kept, 'connection', 'close']))
  incoming.on('error', () => socket.destroy())
  incoming.pipe(socket)
}

// a websocket has an end of its own, so a plain close is enough of a break
const sideOf = (socket: Socket): Side => ({ socket, break: () => void socket.destroy() })

function pass(core: Part, upgrade: Upgrade, passage: Passage): void {
  const { request, socket, head: early } = upgrade
  const { route, path } = passage
  const done = passage.begin(() => socket.destroy())
  const host = ['host', hostOf(request)]
  const hop = ['connection', 'Upgrade', 'upgrade', 'websocket']
  const sent = send({
    agent: route.single,
    host: route.host,
    port: route.port,
    method: 'GET',
    path,
    headers: [
      ...host,
      ...passingRequest(passage.headers, core, passage.drops),
      ...passage.added,
      ...hop,
    ],
    setHost: false,
  })
  socket.once('close', () => {
    done()
    sent.destroy()
  })
  sent.on('error', (error) => {
    core.tally.failed()
    core.log.warn({ err: error, port: route.port }, 'upgrade failed')
    refuse(socket, unreachable)
  })
  sent.once('response', (incoming) => decline(upgrade, incoming, fields(core, incoming, passage)))
  sent.once('upgrade', (incoming, other, late) => {
    if (!(socket instanceof Socket && other instanceof Socket)) return void other.destroy()
    socket.write(head(101, [...fields(core, incoming, passage), ...hop]))
    if (late.length > 0) socket.write(late)
    if (early.length > 0) other.write(early)
    pipeBoth(sideOf(socket), sideOf(other), core.limits)
  })
  sent.end()
}

export function passUpgrade(core: Part, upgrade: Upgrade, doors: Doors): void {
  const { request, socket } = upgrade
  socket.on('error', () => socket.destroy())
  const { url: target = '', rawHeaders: headers } = request
  const host = fieldOf(headers, 'host')
  settle(
    () => doors(socket)?.open({ method: 'GET', target, host, headers }),
    (answer) => {
      if (answer === undefined || socket.destroyed) socket.destroy()
      else if (isRefusal(answer)) refuse(socket, answer)
      else pass(core, upgrade, answer)
    },
    (error) => {
      core.log.warn({ err: error }, 'upgrade ended')
      socket.destroy()
    },
  )
}
