// castellan agent run: a file of its own, for workloads wait for an agent that starts, and the verbs that ask an
// authority load much more.
import { z } from 'zod'
import { flag, optionsOf, type Register, text } from '../register.ts'
import { lifeOption, logFor, untilStopped } from '../run.ts'

export function agentRunCommand(register: Register): void {
  register({
    noun: 'agent',
    verb: 'run',
    about: 'Runs the node agent until it is stopped.',
    options: [['-c, --config <file>', 'agent.yaml', 'agent.yaml'], lifeOption],
    async run(context, given) {
      const { config: file, exitWithStdin = false } = optionsOf(
        given,
        z.object({ config: text, exitWithStdin: flag }),
      )
      // loaded here: --help needs none of it
      const { loadAgentConfig } = await import('../../agent/config.ts')
      const { runAgent } = await import('../../agent/main.ts')
      const config = loadAgentConfig(file)
      const log = logFor('agent', config.logLevel)
      await using agent = await runAgent(config, { log, signal: context.signal })
      await untilStopped(context, { withStdin: exitWithStdin, failed: agent.done })
      return 0
    },
  })
}
