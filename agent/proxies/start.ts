// Drives the proxies that agent.yaml names.
import type { Core } from '../core.ts'
import { createDriven } from './driven.ts'
import type { Driving } from './driving.ts'
import { demandEnvoyCan } from './envoy/problems.ts'
import { followSpecs } from './specs.ts'

/** Throws ERR_CONFIG for a spec that cannot be read, or that its driver cannot do. */
export function startDriven(core: Core): Driving {
  const { config, knowledge, cache, proxies, services, clock, log } = core
  const decisions = config.decisions?.socket
  const canAsk = decisions !== undefined
  const specs = followSpecs({
    proxies: config.proxies,
    demand: (spec) => demandEnvoyCan(spec, { canAsk }),
    ...{ clock, log },
  })
  proxies.followSpecs(specs.current)
  specs.onChange(proxies.tell)
  const driven = createDriven({
    ...{ knowledge, cache, config, services, specs, decisions, clock, log },
  })
  return { driven, [Symbol.asyncDispose]: () => specs[Symbol.asyncDispose]() }
}
