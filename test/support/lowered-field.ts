// One field of a rule, asked twice: as the engine does, and lowered, about the request as Envoy forwards it.
import { isRejection, readHttp } from '../../policies/attributes/request.ts'
import { defaultMesh, type Mesh } from '../../policies/language/mesh.ts'
import { httpGuard } from '../../policies/lower/guard.ts'
import type { Demand, Lower } from '../../policies/lower/lowering.ts'
import type { Quantifier } from '../../policies/rules/quantify.ts'
import type { Made } from '../../policies/rules/test.ts'
import { type EnvoyRequest, headerText } from './envoy-rbac.ts'
import { asEnvoySees, type Sent } from './envoy-request.ts'
import { predicateHolds } from './lowered-verdict.ts'

export interface Field {
  readonly engine: Made
  readonly lowered: Lower
  readonly texts: readonly string[]
  readonly isNegated: boolean
  readonly quantifier: Exclude<Quantifier, 'some'>
  readonly names?: readonly string[]
  readonly mesh?: Mesh
}

export const plainSent: Sent = {
  ...{
    uris: ['spiffe://example.org/ns/x/sa/caller'],
    peerIp: '192.0.2.1',
    destinationIp: undefined,
    destinationPort: 80,
  },
  ...{ serverName: undefined, method: 'GET', target: '/', hosts: ['h'], headers: [] },
}

export function passesGuard(seen: EnvoyRequest): boolean {
  const guard = httpGuard({ methods: new Set() })
  return !guard.some(({ when }) => predicateHolds(when, seen))
}

export interface Both {
  /** of the request as it was sent; undefined when the engine refuses it */
  readonly sent: boolean | undefined
  /** of the request as it is forwarded */
  readonly forwarded: boolean
  readonly lowered: boolean
}

/** Undefined when Envoy or the guard refuses the request, or the field is not lowered. */
export function askBoth(field: Field, sent: Sent): Both | undefined {
  const { mesh = defaultMesh, quantifier, texts, isNegated, names = [] } = field
  const setting = { mesh, quantifier, namespace: 'app' }
  const asked = {
    texts,
    isNegated,
    names,
    port: undefined,
    ip: undefined,
    protocol: 'http',
  } as const
  const lowering = field.lowered(asked, setting)
  if (!lowering.ok) return undefined
  const plain: Demand = 'plain-slashes'
  const mergesSlashes = lowering.demand !== plain
  const seen = asEnvoySees(sent, { mergesSlashes, trustedHops: 0 })
  if (seen === undefined || !passesGuard(seen)) return undefined
  const holds = field.engine.make(texts, isNegated, setting)
  const ask = (target: string, host: string) => {
    const http = readHttp({ method: sent.method, target, host, headers: sent.headers.flat() }, mesh)
    if (isRejection(http)) return undefined
    const nobody = { source: undefined, sourceIp: undefined, remoteIp: undefined, sni: undefined }
    const destination = { id: undefined, namespace: 'app', labels: {}, ip: undefined, port: 80 }
    return holds({ ...nobody, destination, http, claims: undefined })
  }
  const forwarded = ask(headerText(seen, ':path') ?? '', headerText(seen, ':authority') ?? '')
  if (forwarded === undefined) throw new Error('the guard let through what the engine refuses')
  return {
    sent: ask(sent.target, sent.hosts[0] ?? ''),
    forwarded,
    lowered: predicateHolds(lowering.predicate, seen),
  }
}
