// Registration entries by the thousand, made through the API of an authority.
import type { MessageInitShape } from '@bufbuild/protobuf'
import { Entry } from '../../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import type { EntrySchema } from '../../proto/gen/spire/api/types/entry_pb.js'
import { connectLocally } from '../../test/support/ca-client.ts'
import { each } from './crowd.ts'

const trustDomain = 'example.org'

/** The entry of workload `name` below the agent of `parent`, which is a path. */
export function entryOf(name: string, parent: string): MessageInitShape<typeof EntrySchema> {
  return {
    spiffeId: { trustDomain, path: `/ns/bench/sa/${name}` },
    parentId: { trustDomain, path: parent },
    selectors: [{ type: 'unix', value: `user:${name}` }],
  }
}

/** The entry of that path for who runs this, below the agent of `parent`. */
export function ownEntry(path: string, parent: string): MessageInitShape<typeof EntrySchema> {
  return {
    spiffeId: { trustDomain, path },
    parentId: { trustDomain, path: parent },
    selectors: [{ type: 'unix', value: `uid:${process.getuid?.()}` }],
  }
}

export interface EntryMaker extends Disposable {
  /** Their ids; throws when one of them is refused. */
  create(entries: MessageInitShape<typeof EntrySchema>[]): Promise<readonly string[]>
}

export function openEntries(socket: string): EntryMaker {
  const local = connectLocally(socket)
  const client = local.client(Entry)
  return {
    async create(entries) {
      const { results } = await client.batchCreateEntry({ entries, outputMask: {} })
      const refused = results.find(({ status }) => status?.code !== 0)
      if (refused !== undefined) throw new Error(`an entry is refused: ${refused.status?.message}`)
      return results.map(({ entry }) => entry?.id ?? '')
    },
    [Symbol.dispose]: () => local[Symbol.dispose](),
  }
}

const batch = 500

/** `count` entries, spread over `parents`. */
export async function createEntries(
  socket: string,
  count: number,
  parents: readonly string[],
): Promise<void> {
  using maker = openEntries(socket)
  await each(Math.ceil(count / batch), 4, async (index) => {
    const names = Array.from({ length: Math.min(batch, count - index * batch) }, (_, i) =>
      entryOf(`w${index * batch + i}`, parents[(index * batch + i) % parents.length] ?? ''),
    )
    await maker.create(names)
  })
}
