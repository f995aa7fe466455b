// How policy sets come into force: applied, rolled back, one document less. Each is a new version.
import type { PolicyDocument } from '../policies/language/read.ts'
import { findDocuments, type Named, withoutDocument } from '../policies/language/remove.ts'
import { policiesIn } from '../policies/language/set-files.ts'
import { IdentityError } from '../spiffe/errors.ts'
import type { Authority } from './authority.ts'
import { admitPolicies, meshOf, readSet } from './policy-admission.ts'
import type { StoredPolicies } from './store/model.ts'
import { badRequest } from './wire.ts'

export type PolicyParts = Pick<
  Authority,
  'store' | 'registry' | 'clock' | 'trustDomain' | 'policyTraces'
>

export interface Applying {
  /** who, as versions show it */
  readonly caller: string
  readonly message: string
  /** the version that has to be in force still */
  readonly basedOn?: number
  /** it was in force before: what somebody goes back to in need is not judged again */
  readonly wasAdmitted?: boolean
}

/** Admits the set, then writes it. Throws ERR_POLICY with all findings. */
export async function applyPolicies(
  { store, registry, clock, trustDomain, policyTraces }: PolicyParts,
  files: StoredPolicies['files'],
  applying: Applying,
): Promise<StoredPolicies> {
  const current = registry.policies()
  if (JSON.stringify(current.files) === JSON.stringify(files)) return current
  if (applying.wasAdmitted === true) readSet(files)
  else await admitPolicies(files, { mesh: meshOf(trustDomain), clock })
  const { caller, message, basedOn } = applying
  const by = { caller, message, ...(basedOn === undefined ? {} : { basedOn }) }
  return await policyTraces.during(current.version, () =>
    store.policies.set(files, { ...by, at: clock.now() }),
  )
}

/** Throws ERR_NOT_FOUND for a version that is not kept. */
export async function rollbackPolicies(
  parts: PolicyParts,
  version: number,
  applying: Applying,
): Promise<StoredPolicies> {
  const found = await parts.store.policies.find(version)
  if (found === undefined) {
    const kept = (await parts.store.policies.versions()).map((it) => it.version)
    const range = kept.length === 0 ? 'there are none' : `${kept.at(-1)} to ${kept[0]} are`
    throw new IdentityError('ERR_NOT_FOUND', `policy version ${version} is not kept; ${range}`)
  }
  const message = applying.message === '' ? `rollback to version ${version}` : applying.message
  return applyPolicies(parts, found.files, { ...applying, message, wasAdmitted: true })
}

const kinds: Readonly<Record<PolicyDocument['kind'], true>> = {
  AuthorizationPolicy: true,
  RequestAuthentication: true,
  PeerAuthentication: true,
  RateLimit: true,
}
const isKind = (kind: string): kind is PolicyDocument['kind'] => Object.hasOwn(kinds, kind)

/** Any kind where it is empty. Throws ERR_BAD_REQUEST. */
export function kindOf(kind: string): Named['kind'] {
  if (kind === '') return undefined
  if (isKind(kind)) return kind
  return badRequest([{ field: 'kind', problem: `is none of ${Object.keys(kinds).join(', ')}` }])
}

function onlyOne(files: StoredPolicies['files'], named: Named) {
  const name = `${named.namespace}/${named.name}`
  const [first, ...others] = findDocuments(policiesIn(files), named)
  if (first === undefined)
    throw new IdentityError('ERR_NOT_FOUND', `there is no ${named.kind ?? 'policy'} ${name}`)
  if (others.length === 0) return first
  const all = [first, ...others].map(({ kind }) => kind).join(' and ')
  return badRequest([{ field: 'kind', problem: `is missing: ${name} is the name of ${all}` }])
}

/** Throws ERR_NOT_FOUND; ERR_PRECONDITION for one that stands in the folder that is watched. */
export async function deletePolicy(
  parts: PolicyParts,
  named: Named,
  applying: Applying & { readonly watched: string | undefined },
): Promise<StoredPolicies> {
  const { watched, ...rest } = applying
  const { version, files } = parts.registry.policies()
  const { kind, file, line } = onlyOne(files, named)
  const name = `${named.namespace}/${named.name}`
  if (watched !== undefined && file.name.startsWith(`${watched}/`)) {
    const message = `${kind} ${name} stands in ${file.name}:${line}, in the folder that this authority watches: it would come back; delete it there`
    throw new IdentityError('ERR_PRECONDITION', message)
  }
  const left = withoutDocument(file, { ...named, kind })
  const next = files.flatMap((it) => (it !== file ? [it] : left === undefined ? [] : [left]))
  const message = rest.message === '' ? `${kind} ${name} deleted` : rest.message
  return applyPolicies(parts, next, { ...rest, message, basedOn: version })
}
