// istio.v1.auth.IstioCertificateService, as Istio's agents and ztunnel call it.
import {
  type IstioCertificateRequest,
  IstioCertificateService,
} from '../../proto/gen/istio/v1/auth/ca_pb.js'
import { type Service, service } from '../../runtime/grpc/service.ts'
import { bundleToPem } from '../../spiffe/bundle.ts'
import { explain, hasCode, IdentityError } from '../../spiffe/errors.ts'
import { parsePem, toPem } from '../../spiffe/pem.ts'
import type { Authority } from '../authority.ts'
import type { Peer } from '../callers.ts'
import type { IstioCallers } from '../istio/callers.ts'
import { badRequest } from '../wire.ts'

/** Metadata may describe the workload; it may not choose who signs or whose name is signed. */
function checkMetadata({ metadata = {} }: IstioCertificateRequest): void {
  const { CertSigner: signer = '', ImpersonatedIdentity: other = '' } = metadata
  if (other !== '') {
    const cause = new Error(
      'identities are not given to those who ask for them on behalf of others',
    )
    throw new IdentityError('ERR_UNTRUSTED', 'request authenticate failure', { cause })
  }
  if (signer !== '') {
    badRequest([{ field: 'metadata.CertSigner', problem: 'there is no signer to be chosen' }])
  }
}

function csrOf({ csr }: IstioCertificateRequest): Uint8Array {
  try {
    const [der, ...others] = parsePem(csr, 'CERTIFICATE REQUEST', 'csr')
    if (der !== undefined && others.length === 0) return der
    return badRequest([{ field: 'csr', problem: 'is more than one CERTIFICATE REQUEST' }])
  } catch (error) {
    if (!hasCode(error, 'ERR_CERTIFICATE')) throw error
    return badRequest([{ field: 'csr', problem: explain(error) }])
  }
}

export function istioService(authority: Authority, callers: IstioCallers): Service<Peer> {
  return service<typeof IstioCertificateService, Peer>(IstioCertificateService, {
    async createCertificate(request, context) {
      const attested = await callers.authenticate(context)
      checkMetadata(request)
      const { validityDuration } = request
      const wanted = {
        kind: 'service account',
        // beyond any limit when it does not fit
        lifetime: validityDuration > 0n ? Number(validityDuration) * 1000 : 0,
      } as const
      const { chain } = await authority.issue(csrOf(request), attested, wanted)
      const certificates = chain.map((der) => toPem(der, 'CERTIFICATE'))
      return { certChain: [...certificates, bundleToPem(authority.authorities.bundle())] }
    },
  })
}
