// spire.api.server.bundle.v1.Bundle
import { create } from '@bufbuild/protobuf'
import { Bundle } from '../../proto/gen/spire/api/server/bundle/v1/bundle_pb.js'
import { BundleSchema } from '../../proto/gen/spire/api/types/bundle_pb.js'
import { type Service, service } from '../../runtime/grpc/service.ts'
import type { Authority } from '../authority.ts'
import type { Peer } from '../callers.ts'
import { bundleToWire } from '../wire.ts'

export function bundleService({ trustDomain, authorities }: Authority): Service<Peer> {
  return service<typeof Bundle, Peer>(Bundle, {
    getBundle({ outputMask }) {
      const bundle = create(BundleSchema, bundleToWire(trustDomain, authorities))
      if (outputMask?.x509Authorities === false) bundle.x509Authorities = []
      if (outputMask?.sequenceNumber === false) bundle.sequenceNumber = 0n
      return bundle
    },
  })
}
