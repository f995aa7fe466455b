// The labels of registration entries, which SPIRE's messages lack.
import { Code, ConnectError, createClient, type Transport } from '@connectrpc/connect'
import { type EntryLabels, Labels } from '../proto/gen/castellan/entry/v1/labels_pb.js'
import { allPages } from './messages.ts'

export type LabelsOf = Readonly<Record<string, string>>

const atOnce = 1000

/** By entry id, of those among `ids` that have labels; an authority that knows none has none. */
export async function readLabels(
  transport: Transport,
  ids: readonly string[],
): Promise<ReadonlyMap<string, LabelsOf>> {
  const client = createClient(Labels, transport)
  const found: EntryLabels[] = []
  try {
    for (let at = 0; at < ids.length; at += atOnce) {
      const entryIds = ids.slice(at, at + atOnce)
      const page = (pageToken: string) =>
        client.listLabels({ entryIds, pageSize: atOnce, pageToken })
      found.push(...(await allPages(page, ({ entries }) => entries)))
    }
  } catch (error) {
    if (ConnectError.from(error).code !== Code.Unimplemented) throw error
  }
  return new Map(found.map(({ entryId, labels }) => [entryId, labels]))
}

/** `app=web,tier=front`, in the order of the keys. */
export function labelText(labels: LabelsOf): string {
  return Object.entries(labels)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => `${key}=${value}`)
    .join(',')
}
