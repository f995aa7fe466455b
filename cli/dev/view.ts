// The live view: who has which identity, what was decided, how often certificates changed.
import type { AgentStatus } from '../../proto/gen/castellan/workload/v1/admin_pb.js'
import type { Denial } from '../../proto/gen/castellan/workload/v1/sidecar_pb.js'
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

/** The whole picture as text. */
export function picture(
  status: AgentStatus,
  { traffic, denials, now }: { traffic: Traffic; denials: readonly Denial[]; now: number },
): string {
  const sidecars = new Map(status.sidecars.map((it) => [it.spiffeId, it]))
  const rows = status.identities.map(({ spiffeId, serial, notAfter, rotations }) => {
    const sidecar = sidecars.get(spiffeId)
    const decided =
      sidecar === undefined ? ['', ''] : [String(sidecar.allowed), String(sidecar.denied)]
    return [spiffeId, short(serial), left(notAfter, now), String(rotations), ...decided]
  })
  const failed =
    traffic.failed === 0 ? '0 failed' : `${traffic.failed} FAILED (${traffic.failures.at(-1)})`
  const link = status.connected ? 'connected' : `AWAY (${status.trouble}); workloads go on`
  return [
    table([['IDENTITY', 'SERIAL', 'LEFT', 'ROTATIONS', 'ALLOWED', 'DENIED'], ...rows]),
    '',
    `frontend → payments  ${traffic.sent} requests, ${failed}    authority ${link}    policies version ${status.policyVersion}`,
    ...(denials.length === 0 ? [] : ['', 'denied:', ...denials.map(denialLine)]),
  ].join('\n')
}
