// castellan.policy.v1.Policies
import { readPolicies } from '../../policies/read.ts'
import { Policies } from '../../proto/gen/castellan/policy/v1/policies_pb.js'
import { type Service, service } from '../../runtime/grpc/service.ts'
import type { Authority } from '../authority.ts'
import type { Peer } from '../callers.ts'
import type { StoredPolicies } from '../store/model.ts'
import { badRequest } from '../wire.ts'

const mostFiles = 1000

export const rootNamespace = 'istio-system'

export function policiesToWire({ version, files }: StoredPolicies) {
  const list = files.map(({ name, text }) => ({ name, text }))
  return { version: BigInt(version), files: list, rootNamespace }
}

/** Checks the set as every enforcement point will, then writes it. Throws ERR_POLICY with all findings. */
export async function applyPolicies(
  { store, registry, clock }: Pick<Authority, 'store' | 'registry' | 'clock'>,
  files: StoredPolicies['files'],
): Promise<StoredPolicies> {
  if (files.length > mostFiles)
    badRequest([{ field: 'files', problem: `more than ${mostFiles} files` }])
  readPolicies(files)
  const current = registry.policies()
  if (JSON.stringify(current.files) === JSON.stringify(files)) return current
  return store.policies.set(files, clock.now())
}

export function policiesService(authority: Authority): Service<Peer> {
  return service<typeof Policies, Peer>(Policies, {
    getPolicies: () => policiesToWire(authority.registry.policies()),
    async applyPolicies({ files }) {
      return policiesToWire(
        await applyPolicies(
          authority,
          files.map(({ name, text }) => ({ name, text })),
        ),
      )
    },
  })
}
