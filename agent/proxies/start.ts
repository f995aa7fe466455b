// Drives the proxies that agent.yaml names.
import type { ProxySpec } from '../../proxy-spec/spec.ts'
import type { Core } from '../core.ts'
import type { DriverName } from './config.ts'
import { createDriven } from './driven.ts'
import type { Driving } from './driving.ts'
import { demandEnvoyCan } from './envoy/problems.ts'
import { demandGrpcCan } from './grpc/problems.ts'
import { followSpecs } from './specs.ts'

/** Throws ERR_CONFIG for a spec that cannot be read, or that its driver cannot do. */
export function startDriven(core: Core): Driving {
  const { config, knowledge, cache, proxies, services, cuts, clock, log } = core
  const decisions = config.decisions?.socket
  const canAsk = decisions !== undefined
  const demands: Readonly<Record<DriverName, (spec: ProxySpec) => void>> = {
    envoy: (spec) => demandEnvoyCan(spec, { canAsk }),
    grpc: demandGrpcCan,
  }
  const specs = followSpecs({
    proxies: config.proxies,
    demand: (spec, driver) => demands[driver](spec),
    ...{ clock, log },
  })
  proxies.followSpecs(specs.current)
  specs.onChange(proxies.tell)
  const driven = createDriven({
    ...{ knowledge, cache, config, services, specs, cuts, decisions, clock, log },
  })
  return { driven, [Symbol.asyncDispose]: () => specs[Symbol.asyncDispose]() }
}
