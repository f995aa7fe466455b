// castellan bundle show
import { createClient } from '@connectrpc/connect'
import { Bundle } from '../../proto/gen/spire/api/server/bundle/v1/bundle_pb.js'
import { fingerprintOf, parseCertificate } from '../../spiffe/certificate.ts'
import { toPem } from '../../spiffe/pem.ts'
import { answer } from '../context.ts'
import { optionsOf, type Register } from '../register.ts'
import { atAuthority, socketOption, withAuthority } from '../sockets.ts'

export function bundleCommands(register: Register): void {
  register({
    noun: 'bundle',
    verb: 'show',
    about: 'Prints the trust bundle as PEM, with the pin of each certificate in -o json.',
    options: [socketOption],
    run: (context, given) =>
      withAuthority(context, optionsOf(given, atAuthority).socket, async (transport) => {
        const bundle = await createClient(Bundle, transport).getBundle({})
        const authorities = bundle.x509Authorities.map(({ asn1 }) => ({
          pin: `sha256:${fingerprintOf(asn1)}`,
          notAfter: new Date(parseCertificate(asn1).notAfter).toISOString(),
          pem: toPem(asn1, 'CERTIFICATE'),
        }))
        answer(context, { trustDomain: bundle.trustDomain, authorities }, () =>
          authorities
            .map(({ pem }) => pem)
            .join('')
            .trimEnd(),
        )
        return 0
      }),
  })
}
