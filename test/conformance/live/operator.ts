// Whoever may register entries for this process, below the agent that is looked at.
import { createClient, type Transport } from '@connectrpc/connect'
import { Entry } from '../../../proto/gen/spire/api/server/entry/v1/entry_pb.js'

export interface NewEntry {
  readonly path: string
  readonly hint?: string
  readonly federatesWith?: readonly string[]
}

export interface Operator {
  /** Returns the entry's id; rejects with the reason when it is refused. */
  register(entry: NewEntry): Promise<string>
  remove(...ids: readonly string[]): Promise<void>
}

export interface Parent {
  readonly trustDomain: string
  readonly path: string
}

/** The server API is SPIRE's, so this one is for both. `transport` is the authority's local socket. */
export function createOperator(transport: Transport, parentId: Parent): Operator {
  const entries = createClient(Entry, transport)
  const selectors = [{ type: 'unix', value: `uid:${process.getuid?.()}` }]
  return {
    async register({ path, hint = '', federatesWith = [] }) {
      const spiffeId = { trustDomain: parentId.trustDomain, path }
      const { results } = await entries.batchCreateEntry({
        entries: [{ spiffeId, parentId, selectors, hint, federatesWith: [...federatesWith] }],
      })
      const [result] = results
      if (result?.status?.code !== 0) throw new Error(result?.status?.message)
      return result.entry?.id ?? ''
    },
    async remove(...ids) {
      const { results } = await entries.batchDeleteEntry({ ids: [...ids] })
      const refused = results.find(({ status }) => status?.code !== 0)
      if (refused !== undefined) throw new Error(refused.status?.message)
    },
  }
}
