// The same permissions in other engines, each in its best form: parsed once, asked many times.

import * as cedar from '@cedar-policy/cedar-wasm/nodejs'
import { newEnforcer, newModelFromString } from 'casbin'
import type { Asked, Permission } from './sets.ts'

/** Whether a request is allowed. */
export type Ask = (asked: Asked) => boolean

const literal = (text: string) => JSON.stringify(text)

/** Cedar in WebAssembly, its policy set preparsed. */
export function cedarEngine(all: readonly Permission[]): Ask {
  const text = all
    .map(
      ({ principal, method, exact, prefix }) => `permit(
  principal == Caller::${literal(principal)}, action == Action::${literal(method)}, resource
) when { context.path == ${literal(exact)} || context.path like ${literal(`${prefix}*`)} };`,
    )
    .join('\n')
  const id = `bench-${all.length}`
  const parsed = cedar.preparsePolicySet(id, { staticPolicies: text })
  if (parsed.type !== 'success') throw new Error(`cedar: ${JSON.stringify(parsed)}`)
  return ({ permission: { principal, method }, path }) => {
    const answer = cedar.statefulIsAuthorized({
      principal: { type: 'Caller', id: principal },
      action: { type: 'Action', id: method },
      resource: { type: 'Service', id: 'web' },
      context: { path },
      preparsedPolicySetId: id,
      entities: [],
    })
    return answer.type === 'success' && answer.response.decision === 'allow'
  }
}

const model = `
[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = r.sub == p.sub && r.act == p.act && keyMatch(r.obj, p.obj)
`

/** Casbin, in memory and synchronous. */
export async function casbinEngine(all: readonly Permission[]): Promise<Ask> {
  const enforcer = await newEnforcer(newModelFromString(model))
  await enforcer.addPolicies(
    all.flatMap(({ principal, method, exact, prefix }) => [
      [principal, exact, method],
      [principal, `${prefix}*`, method],
    ]),
  )
  return ({ permission: { principal, method }, path }) =>
    enforcer.enforceSync(principal, path, method)
}

/** What a rule list without an index does: one policy after the other. */
export function linearEngine(all: readonly Permission[]): Ask {
  return ({ permission: { principal, method }, path }) =>
    all.some(
      (it) =>
        it.principal === principal &&
        it.method === method &&
        (it.exact === path || path.startsWith(it.prefix)),
    )
}
