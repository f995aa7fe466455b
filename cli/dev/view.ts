// The live view: who has which identity, what was decided, how often certificates changed.
import type { AgentStatus } from '../../proto/gen/castellan/workload/v1/admin_pb.js'
import {
  type Denial,
  type Flow,
  Outcome,
} from '../../proto/gen/castellan/workload/v1/sidecar_pb.js'
import { table } from '../context.ts'
import type { Traffic } from './traffic.ts'

const short = (serial: string) => serial.slice(0, 8)

function left(notAfter: bigint, now: number): string {
  const seconds = Math.max(0, Math.round((Number(notAfter) - now) / 1000))
  return `${seconds} s`
}

function denialLine({ at, reason, remedy }: Denial): string {
  const time = new Date(Number(at)).toISOString().slice(11, 19)
  return remedy === ''
    ? `  ${time}  ${reason}`
    : `  ${time}  ${reason}\n            would allow it: ${remedy}`
}

export function trafficLine({ sent, denied, failed, failures }: Traffic): string {
  const lost = failed === 0 ? '0 failed' : `${failed} FAILED (${failures.at(-1)})`
  return `frontend → payments  ${sent} requests, ${denied} denied, ${lost}`
}

const decisions: ReadonlySet<Outcome> = new Set([
  ...[Outcome.ALLOWED, Outcome.DENIED, Outcome.LIMITED, Outcome.REJECTED],
])

/** How many requests to `id` were let through, and how many were not. */
function decidedFor(id: string, flows: readonly Flow[]): string[] {
  const its = flows.filter(
    ({ destination, outcome }) => destination === id && decisions.has(outcome),
  )
  const sum = (all: readonly Flow[]) => String(all.reduce((total, { count }) => total + count, 0n))
  const isAllowed = ({ outcome }: Flow) => outcome === Outcome.ALLOWED
  return [sum(its.filter(isAllowed)), sum(its.filter((it) => !isAllowed(it)))]
}

export interface Beside {
  readonly traffic: Traffic
  readonly denials: readonly Denial[]
  readonly flows: readonly Flow[]
  readonly now: number
}

/** The whole picture as text. */
export function picture(status: AgentStatus, { traffic, denials, flows, now }: Beside): string {
  const fronts = new Set([...status.sidecars, ...status.proxies].map(({ spiffeId }) => spiffeId))
  const rows = status.identities.map(({ spiffeId, serial, notAfter, rotations }) => {
    const decided = fronts.has(spiffeId) ? decidedFor(spiffeId, flows) : ['', '']
    return [spiffeId, short(serial), left(notAfter, now), String(rotations), ...decided]
  })
  const link = status.connected ? 'connected' : `AWAY (${status.trouble}); workloads go on`
  return [
    table([['IDENTITY', 'SERIAL', 'LEFT', 'ROTATIONS', 'ALLOWED', 'DENIED'], ...rows]),
    '',
    `${trafficLine(traffic)}    authority ${link}    policies version ${status.policyVersion}`,
    ...(denials.length === 0 ? [] : ['', 'denied:', ...denials.map(denialLine)]),
  ].join('\n')
}
