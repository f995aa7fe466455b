// What of a proxy spec an Envoy cannot do: refused by name, never left out.
import { isIP } from 'node:net'
import { refuseFields } from '../../../documents/yaml.ts'
import type { ProxySpec } from '../../../proxy-spec/spec.ts'
import type { Address } from '../../../runtime/config.ts'
import type { FieldProblem } from '../../../spiffe/errors.ts'

/** As Envoy takes it: no names, and one that is as good as an address. */
export const listening = ({ host, port }: Address): Address => ({
  host: host === 'localhost' ? '127.0.0.1' : host,
  port,
})

function ofAddress(field: string, address: Address): FieldProblem[] {
  const { host, port } = listening(address)
  const named = isIP(host) === 0 ? [{ field, problem: 'Envoy listens on IP addresses only' }] : []
  return port === 0 ? [...named, { field, problem: 'Envoy needs a port, not 0' }] : named
}

function problemsOf(spec: ProxySpec, canAsk: boolean): FieldProblem[] {
  const listeners = [
    ...spec.inbound.map((it, i) => ({ field: `inbound[${i}]`, it })),
    ...spec.outbound.map((it, i) => ({ field: `outbound[${i}]`, it })),
  ]
  const unasked = spec.inbound.flatMap(({ protocol }, i) =>
    protocol === 'tcp' && !canAsk
      ? [{ field: `inbound[${i}].protocol`, problem: 'tcp needs `decisions:` in agent.yaml' }]
      : [],
  )
  const elsewhere = (field: string, isThere: boolean) =>
    isThere ? [{ field, problem: 'only the embedded proxy has this' }] : []
  return [
    ...listeners.flatMap(({ field, it }) => ofAddress(`${field}.listen`, it.listen)),
    ...unasked,
    ...elsewhere('authorizers', Object.keys(spec.authorizers).length > 0),
    ...elsewhere('trustedProxies', spec.trustedProxies.length > 0),
    ...elsewhere('trustedHops', spec.trustedHops > 0),
  ]
}

/** Throws ERR_CONFIG naming every field. */
export function demandEnvoyCan(spec: ProxySpec, { canAsk }: { readonly canAsk: boolean }): void {
  const problems = problemsOf(spec, canAsk)
  if (problems.length > 0) refuseFields('ERR_CONFIG', problems)
}
