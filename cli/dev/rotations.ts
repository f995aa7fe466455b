// How often the certificates of the services have changed, as their callers see it.
import type { Clock } from '../../runtime/clock.ts'
import { every } from '../../runtime/lifecycle.ts'
import { knock } from './door.ts'
import type { DevMesh } from './mesh.ts'
import { type ServiceName, services } from './stage.ts'

export interface Rotations extends AsyncDisposable {
  /** serials after the first that it has shown */
  of(service: ServiceName): number
}

/** milliseconds */
const between = 500
const patience = 5000

/** What `service` shows now; undefined when nobody opens. */
function serialAt(mesh: DevMesh, service: ServiceName, now: number): Promise<string | undefined> {
  const { promise, resolve } = Promise.withResolvers<string | undefined>()
  const { socket, serial } = knock(mesh, service, { now })
  socket.setTimeout(patience, () => socket.destroy())
  socket.once('secureConnect', () => socket.destroy())
  // without a certificate of its own a caller is not let in: it has seen that of the service all the same
  socket.once('error', () => socket.destroy())
  socket.once('close', () => resolve(serial()))
  return promise
}

export function watchRotations(mesh: DevMesh, clock: Clock): Rotations {
  const seen = new Map(services.map((service) => [service, new Set<string>()]))
  const watching = every(clock, between, async () => {
    for (const [service, serials] of seen) {
      const serial = await serialAt(mesh, service, clock.now())
      if (serial !== undefined) serials.add(serial)
    }
  })
  return {
    of: (service) => Math.max(0, (seen.get(service)?.size ?? 0) - 1),
    [Symbol.asyncDispose]: () => watching[Symbol.asyncDispose](),
  }
}
