// Ports for programs that have to be told one before they start.
import { freePorts } from '../../cli/dev/ports.ts'

export { freePorts }

/** Free a moment ago, on loopback. */
export async function freePort(): Promise<number> {
  const [port = 0] = await freePorts(1)
  return port
}
