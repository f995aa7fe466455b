// Ports for programs that have to be told one before they start.
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import { systemClock } from '../../runtime/clock.ts'

async function isFree(port: number): Promise<boolean> {
  const server = createServer().listen(port, '127.0.0.1')
  try {
    await once(server, 'listening')
  } catch {
    return false
  }
  await once(server.close(), 'close')
  return true
}

// below those that Linux gives to connections by itself, any of which could be there first
const lowest = 20_000
const highest = 32_000

/** Free a moment ago, on loopback, all distinct. */
export async function freePorts(count: number): Promise<number[]> {
  const ports = new Set<number>()
  while (ports.size < count) {
    const port = randomInt(lowest, highest)
    if (await isFree(port)) ports.add(port)
  }
  return [...ports]
}

async function isOpen(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1')
  try {
    await once(socket, 'connect')
    return true
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}

/** Resolves once somebody listens on all of them, on loopback. */
export async function untilOpen(ports: readonly number[], signal: AbortSignal): Promise<void> {
  for (const port of ports) while (!(await isOpen(port))) await systemClock.sleep(20, { signal })
}
