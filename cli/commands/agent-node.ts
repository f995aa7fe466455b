// castellan agent status, explain: what a person at the node asks its agent.
import { createClient } from '@connectrpc/connect'
import { z } from 'zod'
import {
  AgentAdmin,
  type AgentStatus,
  type EntryMatch,
  type ProcessExplanation,
} from '../../proto/gen/castellan/workload/v1/admin_pb.js'
import { IdentityError } from '../../spiffe/errors.ts'
import { answer, table } from '../context.ts'
import { optionalText, optionsOf, type Register, whole } from '../register.ts'
import { adminSocketOption, withAgent } from '../sockets.ts'

const atAgent = z.object({ adminSocket: optionalText })
const aboutProcess = atAgent.extend({ pid: whole })

const timeOf = (at: bigint) => (at === 0n ? '' : new Date(Number(at)).toISOString())

function statusValue(status: AgentStatus) {
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
    proxySpecs: status.proxySpecs.map(({ file, spiffeId, trouble }) => ({
      ...{ file, spiffeId, trouble },
    })),
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
      .map(({ spiffeId, trouble, file }) => [spiffeId, '', trouble || `${file}: not connected`]),
  ]
  return table([['PROXY', 'PID', 'STATE'], ...rows])
}

function statusText(status: ReturnType<typeof statusValue>): string {
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
  if (identities.length === 0) return [...lines, 'no identities of workloads'].join('\n')
  const rows = identities.map((it) => [it.spiffeId, it.expiresAt, String(it.rotations), it.entryId])
  return [...lines, '', table([['ID', 'EXPIRES', 'ROTATIONS', 'ENTRY'], ...rows])].join('\n')
}

const matchValue = ({ entryId, spiffeId, missing, denied }: EntryMatch) => ({
  ...{ entryId, spiffeId, missing: [...missing], denied },
})

function explanationValue(pid: number, it: ProcessExplanation) {
  return {
    ...{ pid, uid: it.uid, gid: it.gid, selectors: [...it.selectors], absent: [...it.absent] },
    matched: it.matched.map(matchValue),
    near: it.near.map(matchValue),
  }
}

type Explanation = ReturnType<typeof explanationValue>

function whyNot({ missing, denied }: Explanation['near'][number]): string {
  const reasons = [
    ...(denied ? ['is on the deny-list'] : []),
    ...(missing.length > 0 ? [`it has no ${missing.join(', ')}`] : []),
  ]
  return reasons.join('; ')
}

/** Of what a process is, that which tells it from most others. */
function telling(selectors: readonly string[]): string {
  const kinds = ['k8s:sa:', 'docker:label:', 'systemd:id:', 'unix:path:', 'unix:uid:']
  const found = kinds.flatMap((kind) => selectors.find((it) => it.startsWith(kind)) ?? [])
  return found[0] ?? 'unix:uid:0'
}

function explanationText(explanation: Explanation, agentId: string): string {
  const { pid, selectors, absent, matched, near } = explanation
  const list = (items: readonly string[]) => items.map((it) => `  ${it}`)
  const who = matched.map(({ spiffeId, entryId }) => `${spiffeId} (entry ${entryId})`)
  const next = `register it: castellan entry create --spiffe-id ID --parent-id ${agentId} --selector ${telling(selectors)}`
  return [
    `process ${pid} has`,
    ...list(selectors),
    ...(absent.length > 0 ? ['what could not be told', ...list(absent)] : []),
    ...(who.length > 0 ? ['it gets', ...list(who)] : ['it gets no identity', ...list([next])]),
    ...(near.length > 0
      ? ['what nearly applies', ...list(near.map((it) => `${it.spiffeId}: ${whyNot(it)}`))]
      : []),
  ].join('\n')
}

export function agentNodeCommands(register: Register): void {
  register({
    noun: 'agent',
    verb: 'status',
    about: "Shows this node's agent: its own identity, its authority, the identities it holds.",
    options: [adminSocketOption],
    run: (context, given) =>
      withAgent(context, optionsOf(given, atAgent).adminSocket, async (transport) => {
        const status = statusValue(await createClient(AgentAdmin, transport).getStatus({}))
        answer(context, status, () => statusText(status))
        return status.connected ? 0 : 1
      }),
  })
  register({
    noun: 'agent',
    verb: 'explain',
    about: 'Says what a process of this node is, which identities it gets, and which nearly.',
    options: [['--pid <number>', 'the process'], adminSocketOption],
    run: (context, given) => {
      const { pid, adminSocket } = optionsOf(given, aboutProcess)
      if (pid === undefined)
        throw new IdentityError('ERR_BAD_REQUEST', 'which process? Give --pid; ps shows them')
      return withAgent(context, adminSocket, async (transport) => {
        const client = createClient(AgentAdmin, transport)
        const explanation = explanationValue(pid, await client.explainProcess({ pid }))
        const { agentId } = await client.getStatus({})
        answer(context, explanation, () => explanationText(explanation, agentId))
        return explanation.matched.length > 0 ? 0 : 1
      })
    },
  })
}
