// From the moment at which policies reach this node to the one at which everybody here decides with them: a span
// of the trace in which an operator applied them.

import type { Span, Tracer } from '../runtime/tracing/span.ts'
import { parseTraceparent } from '../runtime/tracing/trace-context.ts'
import { IdentityError } from '../spiffe/errors.ts'
import type { Knowledge } from './knowledge.ts'
import { type InUse, type Points, policiesInUse } from './sidecar/in-use.ts'

export interface PolicySpansOptions extends Points {
  readonly knowledge: Pick<Knowledge, 'policies' | 'onChange'>
  readonly tracer: Tracer
}

/** Undefined while somebody has neither taken nor refused it. */
function refusalsOf(inUse: InUse, version: bigint): number | undefined {
  const behind = inUse.points().filter((point) => (point.version ?? 0n) < version)
  const refusing = behind.filter(({ refusal = '' }) => refusal !== '')
  return refusing.length < behind.length ? undefined : refusing.length
}

function refused(count: number): IdentityError | undefined {
  if (count === 0) return undefined
  return new IdentityError('ERR_POLICY', `${count} on this node refused it`)
}

/** Follows until it is disposed; what is known already, from the disk, is no push. */
export function tracePolicies(options: PolicySpansOptions): Disposable {
  const { knowledge, ledger, proxies, tracer } = options
  const inUse = policiesInUse(knowledge, { ledger, proxies })
  let seen = knowledge.policies()?.version
  let open: { readonly version: bigint; readonly span: Span } | undefined

  function begin(version: bigint, traceparent: string): void {
    open?.span.end(
      new IdentityError('ERR_CONFLICT', `version ${version} came before it was in force`),
    )
    const span = tracer.begin('policies.in_force', {
      parent: parseTraceparent(traceparent),
      attributes: { 'castellan.policy.version': Number(version) },
    })
    open = { version, span }
  }

  function look(): void {
    const { version, traceparent } = knowledge.policies() ?? {}
    if (version !== undefined && version !== seen) begin(version, traceparent ?? '')
    seen = version
    if (open === undefined) return
    const refusals = refusalsOf(inUse, open.version)
    if (refusals === undefined) return
    open.span.end(refused(refusals))
    open = undefined
  }

  return inUse.onChange(look)
}
