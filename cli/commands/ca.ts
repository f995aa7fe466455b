// castellan ca init, castellan ca run

import { z } from 'zod'
import { loadCaConfig } from '../../ca/config.ts'
import { runAuthority } from '../../ca/main.ts'
import { demandInitialised, isInitialised, openAuthority, prepareState } from '../../ca/open.ts'
import { fingerprintOf } from '../../spiffe/certificate.ts'
import { answer } from '../context.ts'
import { flag, optionsOf, type Register, text } from '../register.ts'
import { lifeOption, logFor, untilStopped } from '../run.ts'

const configOption = ['-c, --config <file>', 'ca.yaml', 'ca.yaml'] as const
const withConfig = z.object({ config: text, exitWithStdin: flag })

export function caCommands(register: Register): void {
  register({
    noun: 'ca',
    verb: 'init',
    about: 'Makes the state folder, the key file if one is configured, and the first authority.',
    options: [configOption],
    async run(context, given) {
      const { config: file } = optionsOf(given, withConfig)
      const config = loadCaConfig(file)
      const isNew = !isInitialised(config)
      if (isNew) prepareState(config)
      await using authority = await openAuthority(config, { log: logFor('ca', 'warn') })
      const { der } = authority.authorities.active().certificate
      const fingerprint = `sha256:${fingerprintOf(der)}`
      answer(context, { created: isNew, trustDomain: config.trustDomain, fingerprint }, () => {
        const what = isNew ? 'is ready' : 'was initialised before; nothing was changed'
        return `the authority of ${config.trustDomain} ${what}\npin for agents: ${fingerprint}\nnext: castellan ca run --config ${file}`
      })
      return 0
    },
  })
  register({
    noun: 'ca',
    verb: 'run',
    about: 'Runs the authority until it is stopped.',
    options: [configOption, lifeOption],
    async run(context, given) {
      const { config: file, exitWithStdin = false } = optionsOf(given, withConfig)
      const config = loadCaConfig(file)
      demandInitialised(config, file)
      await using _ = await runAuthority(config, { log: logFor('ca', config.logLevel) })
      await untilStopped(context, { withStdin: exitWithStdin })
      return 0
    },
  })
}
