// castellan config validate
import { z } from 'zod'
import { loadAgentConfig } from '../../agent/config.ts'
import { loadCaConfig } from '../../ca/config.ts'
import { loadProxySpec } from '../../proxy-spec/spec.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import { answer } from '../context.ts'
import { optionsOf, type Register, text } from '../register.ts'

const kinds: Readonly<Record<string, (file: string) => unknown>> = {
  ca: loadCaConfig,
  agent: loadAgentConfig,
  proxy: loadProxySpec,
}

export function configCommands(register: Register): void {
  register({
    noun: 'config',
    verb: 'validate',
    about: 'Checks a configuration file; every problem is named with its line.',
    positional: ['<kind>', '<file>'],
    async run(context, given) {
      const [kind = '', file = ''] = given.args
      const load = Object.hasOwn(kinds, kind) ? kinds[kind] : undefined
      if (load === undefined)
        throw new IdentityError(
          'ERR_BAD_REQUEST',
          `kind ${JSON.stringify(kind)}: write ca, agent or proxy, then the file`,
        )
      load(text.parse(file))
      optionsOf(given, z.object({}))
      answer(context, { valid: true, kind, file }, () => `${file} is a valid ${kind} configuration`)
      return 0
    },
  })
}
