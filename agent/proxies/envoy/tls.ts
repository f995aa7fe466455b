// Mutual TLS in both directions, by secrets that come over the same stream: sessions are never resumed.
import {
  SubjectAltNameMatcher_SanType,
  TlsParameters_TlsProtocol,
} from '../../../proto/gen/envoy/extensions/transport_sockets/tls/v3/common_pb.js'
import type { SdsSecretConfigSchema } from '../../../proto/gen/envoy/extensions/transport_sockets/tls/v3/secret_pb.js'
import {
  type CommonTlsContextSchema,
  DownstreamTlsContextSchema,
  UpstreamTlsContextSchema,
} from '../../../proto/gen/envoy/extensions/transport_sockets/tls/v3/tls_pb.js'
import type { SpiffeId } from '../../../spiffe/id.ts'
import { type Init, overAds, typed } from './extension.ts'

/** The names of the secrets that a listener or cluster uses. */
export interface Secrets {
  /** of the certificate and its key */
  readonly svid: SpiffeId
  /** of whom to believe */
  readonly trust: string
}

type Common = Init<typeof CommonTlsContextSchema>

const secret = (name: string): Init<typeof SdsSecretConfigSchema> => ({
  name,
  sdsConfig: overAds,
})

const socketName = 'envoy.transport_sockets.tls'

function commonOf({ svid }: Secrets, alpn: readonly string[]): Common {
  return {
    alpnProtocols: [...alpn],
    tlsParams: { tlsMinimumProtocolVersion: TlsParameters_TlsProtocol.TLSv1_2 },
    tlsCertificateSdsSecretConfigs: [secret(svid)],
  }
}

export function downstreamTls(secrets: Secrets, alpn: readonly string[]) {
  return typed(socketName, DownstreamTlsContextSchema, {
    requireClientCertificate: true,
    sessionTicketKeysType: { case: 'disableStatelessSessionResumption', value: true },
    disableStatefulSessionResumption: true,
    commonTlsContext: {
      ...commonOf(secrets, alpn),
      validationContextType: {
        case: 'validationContextSdsSecretConfig',
        value: secret(secrets.trust),
      },
    },
  })
}

/** Nothing is sent to a server that shows none of `expect`. */
export function upstreamTls(
  secrets: Secrets,
  { expect, alpn }: { readonly expect: readonly SpiffeId[]; readonly alpn: readonly string[] },
) {
  const matchTypedSubjectAltNames = expect.map((value) => ({
    sanType: SubjectAltNameMatcher_SanType.URI,
    matcher: { matchPattern: { case: 'exact', value } as const },
  }))
  return typed(socketName, UpstreamTlsContextSchema, {
    maxSessionKeys: 0,
    commonTlsContext: {
      ...commonOf(secrets, alpn),
      validationContextType: {
        case: 'combinedValidationContext',
        value: {
          defaultValidationContext: { matchTypedSubjectAltNames },
          validationContextSdsSecretConfig: secret(secrets.trust),
        },
      },
    },
  })
}
