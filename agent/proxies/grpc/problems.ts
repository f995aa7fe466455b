// What of a proxy spec a gRPC program cannot do: what would be unsafe is refused by name or closed, the rest is told.
import { isIP } from 'node:net'
import { refuseFields } from '../../../documents/yaml.ts'
import type { InboundSpec } from '../../../proxy-spec/inbound.ts'
import type { OutboundSpec } from '../../../proxy-spec/outbound.ts'
import type { ProxySpec } from '../../../proxy-spec/spec.ts'
import type { Address } from '../../../runtime/config.ts'
import type { FieldProblem } from '../../../spiffe/errors.ts'
import { type SpiffeId, trustDomainOf } from '../../../spiffe/id.ts'
import { listening } from '../envoy/problems.ts'
import { dialled } from './names.ts'

/** Why a program cannot serve there at all. */
export function inboundProblem({ protocol, mtls }: InboundSpec): string | undefined {
  if (protocol === 'tcp') return 'a gRPC program serves gRPC, not bytes'
  if (mtls !== 'strict') return `mtls is ${mtls}: a gRPC program takes mutual TLS and nothing else`
  return undefined
}

/** What is not done, and has to be done in the program. */
export function inboundRemarks({ maxConnectionAge }: InboundSpec): string[] {
  if (maxConnectionAge === undefined) return []
  return [
    `connections are not ended by maxConnectionAge: set grpc.max_connection_age_ms to ${maxConnectionAge} in the server`,
  ]
}

export interface Peers {
  readonly addresses: readonly Address[]
  readonly identity: SpiffeId
}

const isNamed = ({ host }: Address) => isIP(host) === 0

/** Why a program cannot reach them. */
export function outboundProblem(spec: OutboundSpec, peers: Peers): string | undefined {
  const { protocol, expect } = spec
  if (protocol === 'tcp') return 'a gRPC program calls gRPC, it sends no bytes'
  const own = trustDomainOf(peers.identity)
  if (expect.some((id) => trustDomainOf(id) !== own))
    return 'a gRPC program has the roots of its own trust domain alone'
  if (peers.addresses.length > 1 && peers.addresses.some(isNamed))
    return 'a gRPC program takes one host name, or IP addresses'
  return undefined
}

/** What is done otherwise than the spec says, and does no harm. */
export function outboundRemarks({ loadBalancing, retries, outliers }: OutboundSpec): string[] {
  const beyond = retries.on.filter((it) => it === 'reset' || it === 'gateway-error')
  return [
    ...(loadBalancing === 'round-robin' ? [] : ['endpoints are asked in turn (round-robin)']),
    ...(outliers === undefined ? [] : ['endpoints that fail are not left out (outliers)']),
    ...(retries.perTry === undefined ? [] : ['attempts have no time limit of their own (perTry)']),
    ...(beyond.length === 0 ? [] : [`nothing is asked again on ${beyond.join(', ')}`]),
  ]
}

function problemsOf(spec: ProxySpec): FieldProblem[] {
  const inbound = spec.inbound.flatMap((it, i) => {
    const field = `inbound[${i}]`
    const problem = inboundProblem(it)
    const { host, port } = listening(it.listen)
    return [
      ...(problem === undefined ? [] : [{ field, problem }]),
      ...(isIP(host) === 0 || port === 0
        ? [
            {
              field: `${field}.listen`,
              problem: 'gRPC programs listen on an IP address and a port',
            },
          ]
        : []),
    ]
  })
  const names = spec.outbound.map(dialled)
  const outbound = spec.outbound.flatMap((it, i) => {
    const field = `outbound[${i}]`
    const name = dialled(it, i)
    return [
      ...(it.protocol === 'tcp' ? [{ field, problem: 'a gRPC program sends no bytes' }] : []),
      ...(names.indexOf(name) === i ? [] : [{ field, problem: `${name} is dialled already` }]),
    ]
  })
  return [...inbound, ...outbound]
}

/** Throws ERR_CONFIG naming every field. */
export function demandGrpcCan(spec: ProxySpec): void {
  const problems = problemsOf(spec)
  if (problems.length > 0) refuseFields('ERR_CONFIG', problems)
}
