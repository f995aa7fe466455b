// castellan policy apply
import { createClient } from '@connectrpc/connect'
import { z } from 'zod'
import { Policies } from '../../proto/gen/castellan/policy/v1/policies_pb.js'
import { readPolicySet } from '../policy/files.ts'
import { answerOnceEnforced, waiting, waitOptions } from '../policy/waiting.ts'
import { optionalText, optionsOf, type Register } from '../register.ts'
import { socketOption, withAuthority } from '../sockets.ts'
import { messageOption } from './policy-versions.ts'

const applying = z.object({ socket: optionalText, message: optionalText, ...waiting })

export function policyApplyCommand(register: Register): void {
  register({
    noun: 'policy',
    verb: 'apply',
    about:
      'Replaces the policies in force by those of files and folders (*.yaml, *.yml), or refuses them whole: when a request shows an error in them (castellan policy check), or one of their tests fails (*.cases.yaml).',
    positional: ['<path...>'],
    options: [messageOption, ...waitOptions, socketOption],
    run: (context, given) => {
      const { socket, message = '', ...wait } = optionsOf(given, applying)
      const files = readPolicySet(given.args.map((name = '') => name))
      return withAuthority(context, socket, async (transport) => {
        const client = createClient(Policies, transport)
        const { version } = await client.applyPolicies({ files: [...files], message })
        const names = files.map(({ name }) => name)
        const text = `version ${version} is in force`
        const done = { version, fields: { files: names }, text }
        return await answerOnceEnforced(context, transport, done, wait)
      })
    },
  })
}
