// `castellan agent run` and nothing else: workloads wait for an agent that starts, so it loads no other command.
import { agentRunCommand } from './commands/agent-run.ts'
import type { CliProcess, ExitCode } from './context.ts'
import { runProgram } from './program.ts'

export function run(process: CliProcess): Promise<ExitCode> {
  return runProgram(process, { agent: async () => agentRunCommand })
}
