// WebSocket: decided like any request, and opened only by the other side's own 101. Until then not one
// byte behind the request is passed on.
import { type IncomingMessage, STATUS_CODES, request as send } from 'node:http'
import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { fieldOf } from '../policies/attributes/fields.ts'
import { failureOf, type Sent, type Told } from './attempt.ts'
import { noBody } from './body.ts'
import type { Core } from './core.ts'
import { type Doors, isRefusal, type Passage, type Refusal, settle } from './door.ts'
import { startExchange } from './exchange.ts'
import { hostOf, passingRequest, passingResponse } from './headers.ts'
import type { Route } from './onward.ts'
import { pipeBoth, type Side } from './pipe.ts'

type Part = Pick<Core, 'clock' | 'limits' | 'log' | 'tally' | 'identityHeader'>

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

/** What the other side says to it, and the connection if it agrees. */
interface Said {
  readonly incoming: IncomingMessage
  readonly opened?: { readonly socket: Socket; readonly early: Buffer }
}

interface Back extends Said {
  readonly passage: Passage
  readonly route: Route
}

// a websocket has an end of its own, so a plain close is enough of a break
const sideOf = (socket: Socket): Side => ({ socket, break: () => void socket.destroy() })

const hop = ['connection', 'Upgrade', 'upgrade', 'websocket']

function passBack(core: Part, { socket, head: early }: Upgrade, back: Back): void {
  const { incoming, opened, passage, route } = back
  const peer = route.peerOf(incoming.socket)
  const kept = [...passingResponse(incoming.rawHeaders, core), ...passage.downstream]
  if (peer !== undefined) kept.push(core.identityHeader, peer)
  if (opened === undefined) {
    // declined: its answer is passed on, and the connection ends
    socket.write(head(incoming.statusCode ?? 502, [...kept, 'connection', 'close']))
    incoming.on('error', () => socket.destroy())
    incoming.pipe(socket)
    return
  }
  if (!(socket instanceof Socket)) return void opened.socket.destroy()
  const { limits } = core
  socket.write(head(101, [...kept, ...hop]))
  if (opened.early.length > 0) socket.write(opened.early)
  if (early.length > 0) opened.socket.write(early)
  // bytes of either direction pass through it
  if (limits.stall > 0) socket.setTimeout(limits.stall, () => socket.destroy())
  pipeBoth(sideOf(socket), sideOf(opened.socket), limits)
}

/** On a connection of its own, since it becomes the tunnel. */
function forwardUpgrade(
  { single, host, port }: Route,
  { path, headers }: { readonly path: string; readonly headers: readonly string[] },
  told: Told<Said>,
): Sent {
  let isOver = false
  const sent = send({ agent: single, host, port, method: 'GET', path, headers, setHost: false })
  const tell = (incoming: IncomingMessage, opened?: Said['opened']) => {
    incoming.on('error', () => {})
    const status = incoming.statusCode ?? 502
    told.answered({ status }, { incoming, ...(opened && { opened }) })
  }
  sent.once('response', (incoming) => tell(incoming))
  sent.once('upgrade', (incoming, socket, early) => {
    if (socket instanceof Socket && !isOver) tell(incoming, { socket, early })
    else socket.destroy()
  })
  sent.on('error', (error) => {
    if (!isOver) told.failed(failureOf(error, sent.socket !== null))
  })
  sent.end()
  const abort = () => {
    isOver = true
    sent.destroy()
  }
  return { abort, discard: abort }
}

function pass(core: Part, upgrade: Upgrade, passage: Passage): void {
  const { request, socket } = upgrade
  const { onward, path } = passage
  const done = passage.begin(() => socket.destroy())
  const fields = passingRequest(passage.headers, core, passage.drops)
  const headers = ['host', hostOf(request), ...fields, ...passage.added, ...hop]
  const running = startExchange<Route, Said>({
    ...{ core, onward, body: noBody, asking: { method: 'GET', isGrpc: false } },
    send: (route, told) => forwardUpgrade(route, { path, headers }, told),
    deliver: (said, route) => passBack(core, upgrade, { ...said, passage, route }),
    refuse: (refusal) => refuse(socket, refusal),
    cut: () => void socket.destroy(),
  })
  socket.once('close', () => {
    done()
    running.end(false)
  })
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
