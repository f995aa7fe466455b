// What the sidecar tells its agent beside its counts: vitals.
import type { MessageInitShape } from '@bufbuild/protobuf'
import type { Tally } from '../decisions/tally.ts'
import type {
  SidecarReportSchema,
  VitalsSchema,
} from '../proto/gen/castellan/workload/v1/sidecar_pb.js'
import type { Identities } from './identity.ts'

export type Report = MessageInitShape<typeof SidecarReportSchema>
type Vitals = MessageInitShape<typeof VitalsSchema>

/** Undefined while there is no identity to speak of. */
export function vitalsReport(identities: Identities, tally: Tally): Report | undefined {
  const svid = identities.current()?.svid
  if (svid === undefined) return undefined
  const value: Vitals = {
    serial: svid.serial,
    notAfter: BigInt(svid.notAfter),
    rotations: BigInt(identities.rotations),
    failed: BigInt(tally.failures),
  }
  return { report: { case: 'vitals', value } }
}
