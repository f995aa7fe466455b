// grpc.health.v1: whether a service is served, asked once or watched.
import {
  Health,
  type HealthCheckRequest,
  HealthCheckResponse_ServingStatus as Status,
} from '../../proto/gen/grpc/health/v1/health_pb.js'
import { IdentityError } from '../../spiffe/errors.ts'
import { type Clock, systemClock } from '../clock.ts'
import { type CallContext, type Service, service } from './service.ts'

export type Serving = 'serving' | 'not serving' | 'unknown'

export interface HealthOptions {
  /** what List names beside the server as a whole */
  readonly services?: readonly string[]
  readonly clock?: Clock
}

/** milliseconds between two looks of a watcher */
const pause = 1000

const statuses = {
  serving: Status.SERVING,
  'not serving': Status.NOT_SERVING,
  unknown: Status.SERVICE_UNKNOWN,
} as const satisfies Record<Serving, Status>

/** `serving` is asked for one service by its full name, for the server as a whole by ''. */
export function healthService<P>(
  serving: (service: string) => Serving,
  { services = [], clock = systemClock }: HealthOptions = {},
): Service<P> {
  async function* watch({ service: name }: HealthCheckRequest, { signal }: CallContext<P>) {
    let last: Serving | undefined
    while (!signal.aborted) {
      const now = serving(name)
      if (now !== last) yield { status: statuses[now] }
      last = now
      await clock.sleep(pause, { signal })
    }
  }

  return service(Health, {
    check({ service: name }) {
      const now = serving(name)
      if (now !== 'unknown') return { status: statuses[now] }
      throw new IdentityError('ERR_NOT_FOUND', 'no such service')
    },
    list() {
      const named = ['', ...services].map((name) => [name, { status: statuses[serving(name)] }])
      return { statuses: Object.fromEntries(named) }
    },
    watch,
  })
}
