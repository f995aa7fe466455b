// An Envoy of the demonstration: it is told where the agent is, and everything else by the agent.
import { writeFileSync } from 'node:fs'
import { envoyBootstrap } from '../../agent/proxies/envoy/bootstrap.ts'
import { type Child, type StartOptions, startProgram } from './child.ts'

export interface EnvoyOptions extends Omit<StartOptions, 'args'> {
  readonly name: string
  /** the agent's public socket */
  readonly socket: string
  /** where its administration shall be */
  readonly admin: string
  /** where its bootstrap is written */
  readonly config: string
}

/** Resolves once its listeners are open. */
export async function startEnvoy(options: EnvoyOptions): Promise<Child> {
  const { name, socket, admin, config } = options
  const bootstrap = envoyBootstrap({ socket, admin, nodeId: name, delta: true })
  writeFileSync(config, JSON.stringify(bootstrap))
  const args = ['-c', config, '--disable-hot-restart', '--concurrency', '1', '-l', 'info']
  // a field that it does not know is an error of ours
  args.push('--reject-unknown-dynamic-fields')
  return await startProgram({
    ...{ ...options, name: `Envoy ${name}`, args, needsLeash: true },
    read: (line) => (line.includes('starting workers') ? { msg: 'ready' } : undefined),
  })
}
