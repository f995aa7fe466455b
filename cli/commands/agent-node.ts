// castellan agent status, explain: what a person at the node asks its agent.
import { createClient } from '@connectrpc/connect'
import { z } from 'zod'
import {
  AgentAdmin,
  type EntryMatch,
  type ProcessExplanation,
} from '../../proto/gen/castellan/workload/v1/admin_pb.js'
import { IdentityError } from '../../spiffe/errors.ts'
import { answer } from '../context.ts'
import { optionalText, optionsOf, type Register, whole } from '../register.ts'
import { adminSocketOption, withAgent } from '../sockets.ts'
import { statusText, statusValue } from './agent-status.ts'

const atAgent = z.object({ adminSocket: optionalText })
const aboutProcess = atAgent.extend({ pid: whole })

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
    about:
      "Shows this node's agent: its own identity, its authority, the identities it holds, its files, proxies and decision socket.",
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
