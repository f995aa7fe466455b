// An Envoy of the demonstration: it is told where the agent is, and everything else by the agent.
import { writeFileSync } from 'node:fs'
import { envoyBootstrap } from '../../agent/proxies/envoy/bootstrap.ts'
import { drainArguments } from '../../agent/proxies/envoy/drain.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import { type Child, type StartOptions, startProgram } from './child.ts'
import { untilOpen } from './ports.ts'

export interface EnvoyOptions extends Omit<StartOptions, 'args'> {
  readonly name: string
  /** the agent's public socket */
  readonly socket: string
  /** where its administration shall be */
  readonly admin: string
  /** where its bootstrap is written */
  readonly config: string
  /** where it shall listen, as the agent tells it */
  readonly ports: readonly number[]
}

/** milliseconds from its start to its last listener, on a machine that is busy */
const patience = 60_000

/** Resolves once its listeners are open. */
export async function startEnvoy(options: EnvoyOptions): Promise<Child> {
  const { name, socket, admin, config, ports, signal } = options
  const bootstrap = envoyBootstrap({ socket, admin, nodeId: name, delta: true })
  writeFileSync(config, JSON.stringify(bootstrap))
  const args = ['-c', config, '--disable-hot-restart', '--concurrency', '1', '-l', 'info']
  // a field that it does not know is an error of ours
  args.push('--reject-unknown-dynamic-fields', ...drainArguments)
  await using starting = new AsyncDisposableStack()
  const child = starting.use(
    await startProgram({
      ...{ ...options, name: `Envoy ${name}`, args, needsLeash: true },
      read: (line) => (line.includes('starting workers') ? { msg: 'ready' } : undefined),
    }),
  )
  // workers that start open their listeners a moment later; one that it could not open is said in its log alone
  const late = AbortSignal.timeout(patience)
  try {
    await untilOpen(ports, AbortSignal.any([signal, late]))
  } catch (error) {
    signal.throwIfAborted()
    const places = ports.join(', ')
    throw new IdentityError('ERR_UNAVAILABLE', `Envoy ${name} does not listen on ${places}`, {
      cause: error,
    })
  }
  starting.move()
  return child
}
