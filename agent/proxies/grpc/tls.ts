// Mutual TLS of a gRPC program: its certificates are files, named by what its bootstrap calls the one who reads them.
import {
  type CertificateValidationContextSchema,
  SubjectAltNameMatcher_SanType,
} from '../../../proto/gen/envoy/extensions/transport_sockets/tls/v3/common_pb.js'
import {
  type CommonTlsContextSchema,
  DownstreamTlsContextSchema,
  UpstreamTlsContextSchema,
} from '../../../proto/gen/envoy/extensions/transport_sockets/tls/v3/tls_pb.js'
import type { SpiffeId } from '../../../spiffe/id.ts'
import { type Init, typed } from '../envoy/extension.ts'
import { provider } from './names.ts'

type Validation = Init<typeof CertificateValidationContextSchema>

const instance = { instanceName: provider }
const socketName = 'envoy.transport_sockets.tls'

/** No TLS parameters and no validator of our own: a program refuses the whole resource for either. */
const common = (validation: Validation): Init<typeof CommonTlsContextSchema> => ({
  tlsCertificateProviderInstance: instance,
  validationContextType: {
    case: 'validationContext',
    value: { caCertificateProviderInstance: instance, ...validation },
  },
})

export const downstreamTls = () =>
  typed(socketName, DownstreamTlsContextSchema, {
    requireClientCertificate: true,
    sessionTicketKeysType: { case: 'disableStatelessSessionResumption', value: true },
    disableStatefulSessionResumption: true,
    commonTlsContext: common({}),
  })

/**
 * The deprecated list of names is the one that programs look at: with the typed one alone they take any server of
 * the trust domain (proxies.md §8). Envoy and newer programs look at the typed one.
 */
export function upstreamTls(expect: readonly SpiffeId[]) {
  const exactly = expect.map((value) => ({ matchPattern: { case: 'exact', value } as const }))
  const validation: Validation = {
    matchSubjectAltNames: exactly,
    matchTypedSubjectAltNames: exactly.map((matcher) => ({
      sanType: SubjectAltNameMatcher_SanType.URI,
      matcher,
    })),
  }
  return typed(socketName, UpstreamTlsContextSchema, { commonTlsContext: common(validation) })
}
