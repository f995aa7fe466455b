// spire.api.server.logger.v1.Logger: the log level of the running authority.
import { Logger } from '../../proto/gen/spire/api/server/logger/v1/logger_pb.js'
import { LogLevel } from '../../proto/gen/spire/api/types/logger_pb.js'
import { type Service, service } from '../../runtime/grpc/service.ts'
import type { Log } from '../../runtime/log.ts'
import type { Peer } from '../callers.ts'
import { badRequest } from '../wire.ts'

/** SPIRE's PANIC is our fatal: we do not panic. */
const names: Readonly<Record<number, string>> = {
  [LogLevel.PANIC]: 'fatal',
  [LogLevel.FATAL]: 'fatal',
  [LogLevel.ERROR]: 'error',
  [LogLevel.WARN]: 'warn',
  [LogLevel.INFO]: 'info',
  [LogLevel.DEBUG]: 'debug',
  [LogLevel.TRACE]: 'trace',
}

function levelOf(name: string): LogLevel {
  const found = Object.entries(names).findLast(([, it]) => it === name)
  return found === undefined ? LogLevel.UNSPECIFIED : Number(found[0])
}

export function loggerService(log: Log): Service<Peer> {
  const launched = log.level
  const state = () => ({ currentLevel: levelOf(log.level), launchLevel: levelOf(launched) })
  function set(level: string) {
    log.level = level
    log.warn({ level }, 'the log level was changed')
    return state()
  }
  return service<typeof Logger, Peer>(Logger, {
    getLogger: state,
    setLogLevel({ newLevel }) {
      const name = names[newLevel]
      return set(name ?? badRequest([{ field: 'new_level', problem: 'is no level' }]))
    },
    resetLogLevel: () => set(launched),
  })
}
