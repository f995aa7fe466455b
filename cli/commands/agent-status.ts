// What an agent says of itself, as values and as text for people.
import type { AgentStatus } from '../../proto/gen/castellan/workload/v1/admin_pb.js'
import { table } from '../context.ts'

const timeOf = (at: bigint) => (at === 0n ? '' : new Date(Number(at)).toISOString())

/** null where nobody may ask the agent. */
function decisionsValue({ decisions: it }: AgentStatus) {
  if (it === undefined) return null
  const { socket, phase, policyVersion, refusal, connections, processes, allowed, denied } = it
  return { socket, phase, policyVersion, refusal, connections, processes, allowed, denied }
}

export function statusValue(status: AgentStatus) {
  const { agentId, agentSerial, connected, trouble, diskTrouble, policyVersion } = status
  return {
    ...{ agentId, agentSerial, connected, trouble, diskTrouble, policyVersion },
    agentExpiresAt: timeOf(status.agentNotAfter),
    identities: status.identities.map(({ spiffeId, entryId, serial, notAfter, rotations }) => ({
      ...{ spiffeId, entryId, serial, rotations },
      expiresAt: timeOf(notAfter),
    })),
    files: status.files.map(
      ({ folder, spiffeId, version, notAfter, trouble, missing, untold }) => ({
        ...{ folder, spiffeId, version, trouble, missing: [...missing], untold },
        expiresAt: timeOf(notAfter),
      }),
    ),
    proxies: status.proxies.map((it) => ({
      ...{ spiffeId: it.spiffeId, pid: it.pid, nodeId: it.nodeId, policyVersion: it.policyVersion },
      resources: it.resources.map(({ kind, toldVersion, takenVersion, refusal }) => ({
        ...{ kind, toldVersion, takenVersion, refusal },
      })),
      remarks: [...it.remarks],
    })),
    proxySpecs: status.proxySpecs.map(({ file, spiffeId, trouble, barred }) => ({
      ...{ file, spiffeId, trouble, barred },
    })),
    decisions: decisionsValue(status),
    unread: status.unread.map(({ pid, uid, method, milliseconds }) => ({
      ...{ pid, uid, method, seconds: Math.round(Number(milliseconds) / 1000) },
    })),
  }
}

type Files = ReturnType<typeof statusValue>['files']

function filesText(files: Files): string {
  const how = ({ trouble, missing, untold }: Files[number]) =>
    [trouble, missing.length === 0 ? '' : `without ${missing.join(', ')}`, untold]
      .filter((it) => it !== '')
      .join('; ') || 'as they should be'
  const rows = files.map((it) => [it.folder, it.spiffeId, it.expiresAt, how(it)])
  return table([['FILES', 'ID', 'EXPIRES', 'STATE'], ...rows])
}

type Status = ReturnType<typeof statusValue>

const whyAbsent = ({ file, barred }: Status['proxySpecs'][number]) =>
  `${file}: not connected${barred === '' ? '' : `: ${barred}`}`

function proxiesText({ proxies, proxySpecs }: Status): string {
  const how = ({ resources, remarks }: Status['proxies'][number]) => {
    const refused = resources.flatMap(({ kind, refusal }) =>
      refusal === '' ? [] : [`refused its ${kind}: ${refusal}`],
    )
    const late = resources.flatMap(({ kind, toldVersion, takenVersion, refusal }) =>
      refusal !== '' || toldVersion === takenVersion ? [] : [`has not answered about ${kind}`],
    )
    return [...refused, ...late, ...remarks].join('; ') || 'as it should be'
  }
  const ids = new Set(proxies.map(({ spiffeId }) => spiffeId))
  const rows = [
    ...proxies.map((it) => [it.spiffeId || 'without a spec', String(it.pid), how(it)]),
    ...proxySpecs
      .filter(({ spiffeId, trouble }) => trouble !== '' || !ids.has(spiffeId))
      .map((it) => [it.spiffeId, '', it.trouble || whyAbsent(it)]),
  ]
  return table([['PROXY', 'PID', 'STATE'], ...rows])
}

const phases: Readonly<Record<string, string>> = {
  starting: 'does not listen yet',
  'taken over': 'another agent has taken it over',
  lost: 'its file is gone, nobody can connect: restart the agent',
  draining: 'ends, and answers what it was asked',
}

type Decisions = NonNullable<Status['decisions']>

function decisionsText(it: Decisions, newest: bigint): string {
  const { socket, phase, policyVersion: version, refusal, connections, processes } = it
  const by = [
    ...(version === 0n ? ['denies everybody: it has no policies'] : []),
    ...(refusal === '' ? [] : [`refused newer policies: ${refusal}`]),
    ...(refusal === '' && version < newest ? [`has not taken up version ${newest} yet`] : []),
  ]
  const how = [...(phase === 'listening' ? [] : [phases[phase] ?? phase]), ...by].join('; ')
  const open = `${connections} of ${processes} ${processes === 1 ? 'process' : 'processes'}`
  const counts = [it.allowed, it.denied].map(String)
  return table([
    ['DECISIONS', 'POLICIES', 'CONNECTIONS', 'ALLOWED', 'DENIED', 'STATE'],
    [socket, String(version), open, ...counts, how || 'as it should be'],
  ])
}

export function statusText(status: Status): string {
  const { agentId, agentExpiresAt, connected, trouble, diskTrouble, identities, files } = status
  const lines = [
    agentId === '' ? 'this node has not joined yet' : `${agentId}, until ${agentExpiresAt}`,
    connected ? 'connected to the authority' : `not connected to the authority: ${trouble}`,
    ...(diskTrouble === '' ? [] : [`what it knows is in memory only: ${diskTrouble}`]),
    ...status.unread.map(
      ({ pid, method, seconds }) => `process ${pid} has not read ${method} for ${seconds} s`,
    ),
  ]
  if (files.length > 0) lines.push('', filesText(files))
  if (status.proxies.length + status.proxySpecs.length > 0) lines.push('', proxiesText(status))
  if (status.decisions !== null)
    lines.push('', decisionsText(status.decisions, status.policyVersion))
  if (identities.length === 0) return [...lines, 'no identities of workloads'].join('\n')
  const rows = identities.map((it) => [it.spiffeId, it.expiresAt, String(it.rotations), it.entryId])
  return [...lines, '', table([['ID', 'EXPIRES', 'ROTATIONS', 'ENTRY'], ...rows])].join('\n')
}
