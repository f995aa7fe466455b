// Which services the authority serves, and what goes into an error's details.
import { create } from '@bufbuild/protobuf'
import { type Any, anyPack } from '@bufbuild/protobuf/wkt'
import {
  PermissionDeniedDetailsSchema,
  PermissionDeniedDetails_Reason as Reason,
} from '../proto/gen/spire/api/types/status_pb.js'
import { healthService } from '../runtime/grpc/health.ts'
import { reflectionServices } from '../runtime/grpc/reflection.ts'
import type { Service } from '../runtime/grpc/service.ts'
import type { ErrorCode, IdentityError } from '../spiffe/errors.ts'
import type { Authority } from './authority.ts'
import type { Peer } from './callers.ts'
import { agentService } from './services/agent.ts'
import { authoritiesService } from './services/authorities.ts'
import { bundleService } from './services/bundle.ts'
import { controlService } from './services/control.ts'
import { debugService } from './services/debug.ts'
import { denyRulesService } from './services/deny-rules.ts'
import { entryService } from './services/entry.ts'
import { istioService } from './services/istio.ts'
import { labelsService } from './services/labels.ts'
import { localAuthorityService } from './services/local-authority.ts'
import { loggerService } from './services/logger.ts'
import { type PoliciesOptions, policiesService } from './services/policies.ts'
import { recordsService } from './services/records.ts'
import { svidService } from './services/svid.ts'
import { trustDomainService } from './services/trust-domain.ts'

export interface ServicesOptions extends PoliciesOptions {
  readonly notReady: () => string | undefined
}

export function servicesOf(
  authority: Authority,
  { log, notReady, watched }: ServicesOptions,
): readonly Service<Peer>[] {
  const services = [
    agentService(authority),
    entryService(authority, log),
    labelsService(authority, log),
    svidService(authority, log),
    bundleService(authority, log),
    trustDomainService(authority, log),
    localAuthorityService(authority, log),
    authoritiesService(authority, log),
    loggerService(log),
    debugService(authority),
    controlService(authority),
    ...(authority.istio === undefined ? [] : [istioService(authority, authority.istio)]),
    policiesService(authority, { log, watched }),
    denyRulesService(authority, log),
    recordsService(authority, log),
  ]
  const known = new Set(['', ...services.map(({ descriptor }) => descriptor.typeName)])
  const health = healthService<Peer>((name) => {
    if (!known.has(name)) return 'unknown'
    return notReady() === undefined ? 'serving' : 'not serving'
  })
  const all = [...services, health]
  return [...all, ...reflectionServices<Peer>(all.map(({ descriptor }) => descriptor))]
}

/** What a stock SPIRE agent reads to know whether to re-attest, wipe or stop. */
const reasons: Readonly<Partial<Record<ErrorCode, Reason>>> = {
  ERR_AGENT_BANNED: Reason.AGENT_BANNED,
  ERR_AGENT_EXPIRED: Reason.AGENT_EXPIRED,
  ERR_AGENT_NOT_ACTIVE: Reason.AGENT_NOT_ACTIVE,
  ERR_AGENT_MUST_REATTEST: Reason.AGENT_MUST_REATTEST,
  ERR_AGENT_NOT_ATTESTED: Reason.AGENT_NOT_ATTESTED,
}

export function detailsOf({ code }: IdentityError): readonly Any[] {
  const reason = reasons[code]
  if (reason === undefined) return []
  return [anyPack(PermissionDeniedDetailsSchema, create(PermissionDeniedDetailsSchema, { reason }))]
}
