// castellan agent flows: who called whom on this node, and what was decided.
import { createClient } from '@connectrpc/connect'
import { z } from 'zod'
import { AgentAdmin } from '../../proto/gen/castellan/workload/v1/admin_pb.js'
import { type Flow, Outcome } from '../../proto/gen/castellan/workload/v1/sidecar_pb.js'
import { answer, table } from '../context.ts'
import { optionalText, optionsOf, type Register } from '../register.ts'
import { adminSocketOption, withAgent } from '../sockets.ts'

const options = z.object({
  adminSocket: optionalText,
  source: optionalText,
  destination: optionalText,
})

const outcomeText = (outcome: Outcome) =>
  (Outcome[outcome] ?? 'unspecified').toLowerCase().replace('_', ' ')

const flowValue = ({ source, destination, outcome, policy, rule, count }: Flow) => ({
  ...{ source, destination, outcome: outcomeText(outcome), count },
  ...(policy === '' ? {} : { policy, rule }),
})

type Value = ReturnType<typeof flowValue>

const rowOf = ({ source, destination, outcome, count, policy, rule }: Value) => [
  source || '(no identity)',
  destination,
  outcome,
  policy === undefined ? '-' : `${policy} rule ${rule}`,
  String(count),
]

function flowsText(flows: readonly Value[]): string {
  if (flows.length === 0) return 'nothing was decided on this node yet'
  return table([['CALLER', 'CALLEE', 'OUTCOME', 'BY', 'COUNT'], ...flows.map(rowOf)])
}

export function agentFlowsCommand(register: Register): void {
  register({
    noun: 'agent',
    verb: 'flows',
    about:
      "Who called whom since this node's agent started, and what was decided; what AUDIT rules and policies in shadow mode would have said, too.",
    example: 'castellan agent flows --destination spiffe://example.org/ns/payments/sa/api',
    options: [
      ['--source <spiffe-id>', 'of this caller alone'],
      ['--destination <spiffe-id>', 'to this identity alone'],
      adminSocketOption,
    ],
    run: (context, given) => {
      const { adminSocket, source = '', destination = '' } = optionsOf(given, options)
      return withAgent(context, adminSocket, async (transport) => {
        const client = createClient(AgentAdmin, transport)
        const flows = (await client.listFlows({ source, destination })).flows.map(flowValue)
        answer(context, flows, () => flowsText(flows))
        return 0
      })
    },
  })
}
