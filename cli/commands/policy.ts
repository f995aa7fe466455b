// castellan policy apply, list, denials
import { readFileSync } from 'node:fs'
import { createClient } from '@connectrpc/connect'
import { z } from 'zod'
import { Policies } from '../../proto/gen/castellan/policy/v1/policies_pb.js'
import { AgentAdmin } from '../../proto/gen/castellan/workload/v1/admin_pb.js'
import type { Denial } from '../../proto/gen/castellan/workload/v1/sidecar_pb.js'
import { errnoOf } from '../../runtime/errno.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import { answer, table } from '../context.ts'
import { optionalText, optionsOf, type Register, whole } from '../register.ts'
import {
  adminSocketOption,
  atAuthority,
  socketOption,
  withAgent,
  withAuthority,
} from '../sockets.ts'

const atAgent = z.object({ adminSocket: optionalText, limit: whole })

export function denialText({ reason, remedy }: Denial): string {
  return remedy === '' ? reason : `${reason}\n  would allow it: ${remedy}`
}

function readPolicyFile(name: string): { name: string; text: string } {
  try {
    return { name, text: readFileSync(name, 'utf8') }
  } catch (cause) {
    throw new IdentityError('ERR_BAD_REQUEST', `cannot read ${name} (${errnoOf(cause)})`, { cause })
  }
}

export function policyCommands(register: Register): void {
  register({
    noun: 'policy',
    verb: 'apply',
    about: 'Replaces the policies in force by those of the files, or refuses them whole.',
    positional: ['<file...>'],
    options: [socketOption],
    run: (context, given) =>
      withAuthority(context, optionsOf(given, atAuthority).socket, async (transport) => {
        const names = given.args.map((name = '') => name)
        const files = names.map(readPolicyFile)
        const { version } = await createClient(Policies, transport).applyPolicies({ files })
        answer(context, { version, files: names }, () => `version ${version} is in force`)
        return 0
      }),
  })
  register({
    noun: 'policy',
    verb: 'list',
    about: 'Lists the policy files in force.',
    options: [socketOption],
    run: (context, given) =>
      withAuthority(context, optionsOf(given, atAuthority).socket, async (transport) => {
        const { version, files } = await createClient(Policies, transport).getPolicies({})
        answer(context, { version, files: files.map(({ name, text }) => ({ name, text })) }, () =>
          table([['VERSION', 'FILE'], ...files.map(({ name }) => [String(version), name])]),
        )
        return 0
      }),
  })
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
