// castellan policy denials, and where the other verbs are
import { createClient } from '@connectrpc/connect'
import { z } from 'zod'
import { AgentAdmin } from '../../proto/gen/castellan/workload/v1/admin_pb.js'
import type { Denial } from '../../proto/gen/castellan/workload/v1/sidecar_pb.js'
import { answer } from '../context.ts'
import { optionalText, optionsOf, type Register, whole } from '../register.ts'
import { adminSocketOption, withAgent } from '../sockets.ts'
import { policyApplyCommand } from './policy-apply.ts'
import { policyCheckCommand } from './policy-check.ts'
import { policyEvalCommand } from './policy-eval.ts'
import { policyExplainCommand } from './policy-explain.ts'
import { policyLowerCommand } from './policy-lower.ts'
import { policyTestCommand } from './policy-test.ts'
import { policyVersionCommands } from './policy-versions.ts'

const atAgent = z.object({ adminSocket: optionalText, limit: whole })

export function denialText({ reason, remedy }: Denial): string {
  return remedy === '' ? reason : `${reason}\n  would allow it: ${remedy}`
}

export function policyCommands(register: Register): void {
  policyEvalCommand(register)
  policyCheckCommand(register)
  policyTestCommand(register)
  policyExplainCommand(register)
  policyLowerCommand(register)
  policyApplyCommand(register)
  policyVersionCommands(register)
  register({
    noun: 'policy',
    verb: 'denials',
    about:
      "The node's newest denials: which policy and rule, and the smallest change that would allow them.",
    options: [['--limit <n>', 'how many', '20'], adminSocketOption],
    run: (context, given) => {
      const { adminSocket, limit } = optionsOf(given, atAgent)
      return withAgent(context, adminSocket, async (transport) => {
        const { denials } = await createClient(AgentAdmin, transport).listDenials({
          limit: limit ?? 0,
        })
        const plain = denials.map(({ $typeName, $unknown, at, ...rest }) => ({
          at: new Date(Number(at)).toISOString(),
          ...rest,
        }))
        answer(context, plain, () =>
          denials.length === 0 ? 'no denials' : denials.map(denialText).join('\n'),
        )
        return 0
      })
    },
  })
}
