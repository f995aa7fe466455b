// Every command of castellan, each loaded when it is asked for.
import type { CliProcess, ExitCode } from './context.ts'
import { type Groups, runProgram } from './program.ts'

const groups: Groups = {
  dev: async () => (await import('./commands/dev.ts')).devCommands,
  call: async () => (await import('./commands/call.ts')).callCommands,
  ca: async () => (await import('./commands/ca.ts')).caCommands,
  agent: async () => (await import('./commands/agent.ts')).agentCommands,
  proxy: async () => (await import('./commands/proxy.ts')).proxyCommands,
  envoy: async () => (await import('./commands/envoy.ts')).envoyCommands,
  grpc: async () => (await import('./commands/grpc.ts')).grpcCommands,
  token: async () => (await import('./commands/token.ts')).tokenCommands,
  entry: async () => (await import('./commands/entry.ts')).entryCommands,
  authority: async () => (await import('./commands/authority.ts')).authorityCommands,
  bundle: async () => (await import('./commands/bundle.ts')).bundleCommands,
  federation: async () => (await import('./commands/federation.ts')).federationCommands,
  deny: async () => (await import('./commands/deny.ts')).denyCommands,
  issued: async () => (await import('./commands/issued.ts')).issuedCommands,
  inspect: async () => (await import('./commands/inspect.ts')).inspectCommands,
  svid: async () => (await import('./commands/svid.ts')).svidCommands,
  policy: async () => (await import('./commands/policy.ts')).policyCommands,
  doctor: async () => (await import('./commands/doctor.ts')).doctorCommands,
  config: async () => (await import('./commands/config.ts')).configCommands,
}

export function run(process: CliProcess): Promise<ExitCode> {
  return runProgram(process, groups)
}
