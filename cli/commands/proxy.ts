// castellan proxy run
import { z } from 'zod'
import { startProxy } from '../../proxy/main.ts'
import { loadProxySpec } from '../../proxy-spec/spec.ts'
import { flag, optionsOf, type Register, text } from '../register.ts'
import { lifeOption, logFor, untilStopped } from '../run.ts'
import { proxyPlanCommand } from './proxy-plan.ts'

export function proxyCommands(register: Register): void {
  register({
    noun: 'proxy',
    verb: 'run',
    about: 'Runs the embedded sidecar of a proxy spec until it is stopped.',
    options: [
      ['-s, --spec <file>', 'proxy spec', 'proxy.yaml'],
      ['--log-level <level>', 'debug, info, warn or error', 'info'],
      lifeOption,
    ],
    async run(context, given) {
      const {
        spec: file,
        logLevel,
        exitWithStdin = false,
      } = optionsOf(given, z.object({ spec: text, logLevel: text, exitWithStdin: flag }))
      const { signal, process } = context
      const log = logFor('proxy', logLevel)
      await using proxy = await startProxy({
        spec: loadProxySpec(file),
        log,
        signal,
        environment: process.env,
      })
      log.info({ listeners: proxy.listeners }, 'ready')
      await untilStopped(context, { withStdin: exitWithStdin })
      return 0
    },
  })
  proxyPlanCommand(register)
}
