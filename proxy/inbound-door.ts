// The door of one inbound connection: each request judged, what passes led to the workload, the health path unasked.

import { fieldOf } from '../policies/attributes/fields.ts'
import { isRejection, type RawHttp, readHttp } from '../policies/attributes/request.ts'
import type { InboundSpec } from '../proxy-spec/inbound.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Connection } from './connections.ts'
import { forwardedPath, judge } from './consult.ts'
import type { Core } from './core.ts'
import type { Answer, Door, Passage, Refusal } from './door.ts'
import { withoutIdentity } from './headers.ts'
import type { Allowed, Arrival, Verdict } from './judge.ts'
import type { Onward, Route } from './onward.ts'
import type { Side } from './pipe.ts'

/** A connection that may be read from: registered, and verified if it is one of mutual TLS. */
export interface Arrived {
  readonly side: Side
  readonly connection: Connection
  readonly isHttp2: boolean
  readonly sni: string | undefined
}

export function arrivalOf(
  { side, connection, sni }: Arrived,
  { forwardTo: { port }, backend }: InboundSpec,
): Arrival {
  return { connection, sourceAddress: side.socket.remoteAddress, sni, port, backend }
}

/** RFC 9110 §10.2.3: whole seconds, and none is no time to wait. */
function tooMany(retryAfter: number): Refusal {
  const seconds = Math.max(1, Math.ceil(retryAfter / 1000))
  return { status: 429, text: 'too many requests', headers: { 'retry-after': String(seconds) } }
}

/** RFC 9110 §15.5.2: a 401 says how to authenticate; RFC 6750 §3.1 that it was the token. */
function refused({ status, reason }: Extract<Verdict, { kind: 'refused' }>): Refusal {
  const challenge = { 'www-authenticate': 'Bearer error="invalid_token"' }
  return { status, text: reason, ...(status === 401 ? { headers: challenge } : {}) }
}

interface Ways {
  readonly core: Core
  readonly spec: InboundSpec
  readonly onward: Onward<Route>
  readonly arrived: Arrived
}

/** What all requests of a connection have in common on their way onwards. */
function shared({ core, spec, onward, arrived }: Ways, peer: SpiffeId | undefined) {
  const { side, connection } = arrived
  return {
    onward,
    overHttp2: spec.protocol === 'grpc',
    named: peer === undefined ? [] : [core.identityHeader, peer],
    isLast: () => connection.retired,
    ended() {
      if (connection.retired && !connection.busy) side.socket.destroySoon()
    },
  }
}

function passageOf(verdict: Allowed, ways: Ways): Passage {
  const { peer, decided, raw, consents, downstream } = verdict
  const { request, authenticated, guard } = decided
  const { named, ended, ...its } = shared(ways, peer)
  return {
    ...its,
    headers: raw.headers,
    downstream,
    path: forwardedPath(decided),
    added: [...authenticated.adds, ...named],
    drops: authenticated.drops,
    begin(end) {
      const { backend } = guard.mesh
      const done = ways.arrived.connection.begin({ request, consents, backend, end })
      return () => {
        done()
        ended()
      }
    },
  }
}

/**
 * A probe, which has no need of a decision; undefined for all that is not just that: another method or query, a
 * request that changes its protocol, one that the engine would not even read.
 */
function healthPassage(raw: RawHttp, ways: Ways): Passage | undefined {
  const { core, spec, arrived } = ways
  if (raw.target !== spec.healthPath || !(raw.method === 'GET' || raw.method === 'HEAD'))
    return undefined
  if (fieldOf(raw.headers, 'upgrade') !== undefined) return undefined
  const { policies } = core.mesh.current()
  if (isRejection(readHttp(raw, policies.behind(spec.backend).mesh))) return undefined
  const { named, ended, ...its } = shared(ways, arrived.connection.peer())
  return {
    ...its,
    ...{ headers: raw.headers, downstream: [], path: raw.target, added: named, drops: [] },
    begin() {
      const release = arrived.connection.hold()
      return () => {
        release()
        ended()
      }
    },
  }
}

function answerTo(verdict: Verdict, ways: Ways): Answer {
  switch (verdict.kind) {
    case 'refused':
      return refused(verdict)
    case 'denied':
      return verdict.refusal ?? { status: 403, text: 'access denied' }
    case 'limited':
      return tooMany(verdict.retryAfter)
    case 'allowed':
      return passageOf(verdict, ways)
  }
}

export function inboundDoor(ways: Ways): Door {
  const { core, spec, arrived } = ways
  const { side, connection, isHttp2 } = arrived
  const arrival = arrivalOf(arrived, spec)
  const leaving = new AbortController()
  side.socket.once('close', () => leaving.abort())
  const gone = leaving.signal

  /** The connection stays while others are asked, also at shutdown. */
  async function answerAfter(verdict: Promise<Verdict>): Promise<Answer> {
    const release = connection.hold()
    try {
      return answerTo(await verdict, ways)
    } finally {
      // whoever waits for the answer goes first
      setImmediate(() => {
        release()
        const isOver = connection.retired && !connection.busy
        if (isOver && !isHttp2) side.socket.destroySoon()
      })
    }
  }

  return {
    open(asked) {
      const raw = { ...asked, headers: withoutIdentity(asked.headers, core) }
      const health = healthPassage(raw, ways)
      if (health !== undefined) return health
      const verdict = judge(core, arrival, { raw, gone })
      return verdict instanceof Promise ? answerAfter(verdict) : answerTo(verdict, ways)
    },
  }
}
