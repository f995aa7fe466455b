// castellan.policy.v1.Policies
import { policiesIn } from '../../policies/language/set-files.ts'
import { Policies } from '../../proto/gen/castellan/policy/v1/policies_pb.js'
import { type Service, service } from '../../runtime/grpc/service.ts'
import type { Log } from '../../runtime/log.ts'
import type { Authority } from '../authority.ts'
import { nameOf, type Peer } from '../callers.ts'
import { rootNamespace } from '../policy-admission.ts'
import { applyPolicies, deletePolicy, kindOf, rollbackPolicies } from '../policy-sets.ts'
import type { StoredPolicies } from '../store/model.ts'
import { printableReason } from '../wire.ts'
import { watchEnforcement } from './enforcement.ts'

export interface PoliciesOptions {
  readonly log: Log
  /** the folder whose files come into force by themselves */
  readonly watched: string | undefined
}

export function policiesToWire({ version, files }: StoredPolicies) {
  const list = files.map(({ name, text }) => ({ name, text }))
  return { version: BigInt(version), files: list, rootNamespace }
}

/** What is decided with: the tests of a set stay here. */
export function enforcedToWire({ version, files }: StoredPolicies) {
  return policiesToWire({ version, files: policiesIn(files) })
}

export function policiesService(
  authority: Authority,
  { log, watched }: PoliciesOptions,
): Service<Peer> {
  const { registry, store } = authority

  /** Who changes, and why, for the change and for the log behind it. */
  async function change(
    peer: Peer,
    message: string,
    work: (by: { caller: string; message: string }) => Promise<StoredPolicies>,
  ) {
    const before = registry.policies().version
    const by = { caller: nameOf(peer), message: printableReason(message, 'message') }
    const set = await work(by)
    const { version } = set
    if (version !== before) log.info({ audit: true, version, before, ...by }, 'policies changed')
    return policiesToWire(set)
  }

  return service<typeof Policies, Peer>(Policies, {
    getPolicies: () => policiesToWire(registry.policies()),
    applyPolicies: ({ files, message }, { peer }) =>
      change(peer, message, (by) => {
        const plain = files.map(({ name, text }) => ({ name, text }))
        return applyPolicies(authority, plain, by)
      }),
    async listVersions() {
      const versions = await store.policies.versions()
      return {
        versions: versions.map(({ version, at, caller, message }) => ({
          ...{ caller, message },
          version: BigInt(version),
          at: BigInt(at),
        })),
      }
    },
    watchEnforcement: ({ version }, { signal }) =>
      watchEnforcement(authority, Number(version) || registry.policies().version, signal),
    rollbackPolicies: ({ version, message }, { peer }) =>
      change(peer, message, (by) => rollbackPolicies(authority, Number(version), by)),
    deletePolicy: ({ namespace, name, kind, message }, { peer }) =>
      change(peer, message, (by) =>
        deletePolicy(authority, { namespace, name, kind: kindOf(kind) }, { ...by, watched }),
      ),
  })
}
