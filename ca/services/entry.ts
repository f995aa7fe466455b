// spire.api.server.entry.v1.Entry
import { create } from '@bufbuild/protobuf'
import {
  type CountEntriesRequest_Filter,
  Entry,
  type ListEntriesRequest_Filter,
  type SyncAuthorizedEntriesRequest,
} from '../../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import {
  type EntryMask,
  type Entry as EntryMessage,
  EntrySchema,
} from '../../proto/gen/spire/api/types/entry_pb.js'
import { type CallContext, type Service, service } from '../../runtime/grpc/service.ts'
import type { Log } from '../../runtime/log.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import type { Authority } from '../authority.ts'
import type { Peer } from '../callers.ts'
import { entryFromWire, updatedEntry } from '../entries.ts'
import { selectorsMatch, setsMatch } from '../selectors.ts'
import type { EntryRow } from '../store/model.ts'
import { badRequest, entryToWire, idFromWire } from '../wire.ts'
import { pageOf } from './page.ts'
import { bounded, ok, statusOfItem } from './status.ts'

const syncPage = 500

type EntryFilter = CountEntriesRequest_Filter | ListEntriesRequest_Filter

function filtered(entries: Iterable<EntryRow>, filter: EntryFilter | undefined): EntryRow[] {
  if (filter === undefined) return [...entries]
  const { bySelectors, byFederatesWith, byHint, byDownstream } = filter
  const id = filter.bySpiffeId && idFromWire(filter.bySpiffeId, 'filter.by_spiffe_id')
  const parent = filter.byParentId && idFromWire(filter.byParentId, 'filter.by_parent_id')
  return [...entries].filter(
    (entry) =>
      (id === undefined || entry.spiffeId === id) &&
      (parent === undefined || entry.parentId === parent) &&
      (bySelectors === undefined || selectorsMatch(entry.selectors, bySelectors)) &&
      (byFederatesWith === undefined ||
        setsMatch(entry.federatesWith, byFederatesWith.trustDomains, byFederatesWith.match)) &&
      (byHint === undefined || entry.hint === byHint) &&
      // stock clients always send false, which means no filter
      (byDownstream !== true || entry.downstream),
  )
}

async function* syncPages(
  requests: AsyncIterable<SyncAuthorizedEntriesRequest>,
  list: () => EntryRow[],
) {
  let mask: EntryMask | undefined
  let isFirst = true
  for await (const { outputMask, ids } of requests) {
    if (isFirst) {
      isFirst = false
      mask = outputMask
      if (ids.length > 0) badRequest([{ field: 'ids', problem: 'come after the first message' }])
      yield* firstAnswer(list(), mask)
      continue
    }
    const wanted = new Set(ids)
    const found = list().filter(({ id }) => wanted.has(id))
    for (let at = 0; at === 0 || at < found.length; at += syncPage) {
      const entries = found.slice(at, at + syncPage).map((entry) => entryToWire(entry, mask))
      yield { entries, more: at + syncPage < found.length }
    }
  }
}

/** Everything when it fits one page; revisions first when it does not (SPIRE's sync). */
function* firstAnswer(all: readonly EntryRow[], mask: EntryMask | undefined) {
  if (all.length <= syncPage) {
    yield { entries: all.map((entry) => entryToWire(entry, mask)), more: false }
    return
  }
  for (let at = 0; at < all.length; at += syncPage) {
    const page = all.slice(at, at + syncPage)
    const entryRevisions = page.map(({ id, revision, createdAt }) => ({
      id,
      revisionNumber: BigInt(revision),
      createdAt: BigInt(createdAt),
    }))
    yield { entryRevisions, more: at + syncPage < all.length }
  }
}

export function entryService(authority: Authority, log: Log): Service<Peer> {
  const { trustDomain, clock, store, registry, callers } = authority
  const { entries } = registry

  function found(id: string): EntryRow {
    const entry = entries.get(id)
    if (entry === undefined)
      throw new IdentityError('ERR_NOT_FOUND', `entry ${JSON.stringify(id.slice(0, 80))} not found`)
    return entry
  }

  function authorized(context: CallContext<Peer>): EntryRow[] {
    const now = clock.now()
    const denyList = registry.denyList()
    return entries
      .authorized(callers.agent(context).row, now)
      .filter(({ spiffeId }) => denyList.againstId(spiffeId, now) === undefined)
      .sort((a, b) => (a.id < b.id ? -1 : 1))
  }

  async function createOne(message: EntryMessage, at: string, mask: EntryMask | undefined) {
    try {
      const entry = entryFromWire(message, trustDomain, clock.now(), at)
      await store.entries.create(entry)
      return { status: ok, entry: entryToWire(entry, mask) }
    } catch (error) {
      return { status: statusOfItem(error, log) }
    }
  }

  async function updateOne(
    message: EntryMessage,
    at: string,
    input: EntryMask | undefined,
    output: EntryMask | undefined,
  ) {
    try {
      const entry = await store.entries.update(found(message.id).id, (known) => {
        const whole = complete(message, known, input)
        return updatedEntry(known, entryFromWire(whole, trustDomain, clock.now(), at), input)
      })
      return { status: ok, entry: entryToWire(entry, output) }
    } catch (error) {
      return { status: statusOfItem(error, log) }
    }
  }

  async function deleteOne(id: string) {
    try {
      found(id)
      await store.entries.delete(id)
      return { status: ok, id }
    } catch (error) {
      return { status: statusOfItem(error, log), id }
    }
  }

  return service<typeof Entry, Peer>(Entry, {
    countEntries: ({ filter }) => ({ count: filtered(entries.all(), filter).length }),
    listEntries({ filter, outputMask, pageSize, pageToken }) {
      const { items, nextPageToken } = pageOf(filtered(entries.all(), filter), pageSize, pageToken)
      return { entries: items.map((entry) => entryToWire(entry, outputMask)), nextPageToken }
    },
    getEntry: ({ id, outputMask }) => entryToWire(found(id), outputMask),
    async batchCreateEntry({ entries: list, outputMask }) {
      const all = bounded(list, 'entries').map((it, i) =>
        createOne(it, `entries[${i}]`, outputMask),
      )
      return { results: await Promise.all(all) }
    },
    async batchUpdateEntry({ entries: list, inputMask, outputMask }) {
      const all = bounded(list, 'entries').map((it, i) =>
        updateOne(it, `entries[${i}]`, inputMask, outputMask),
      )
      return { results: await Promise.all(all) }
    },
    async batchDeleteEntry({ ids }) {
      return { results: await Promise.all(bounded(ids, 'ids').map(deleteOne)) }
    },
    getAuthorizedEntries: ({ outputMask }, context) => ({
      entries: authorized(context).map((entry) => entryToWire(entry, outputMask)),
    }),
    syncAuthorizedEntries: (requests, context) => syncPages(requests, () => authorized(context)),
  })
}

/** What the mask leaves out is taken from the entry as it is, so that only what is written is checked. */
function complete(
  message: EntryMessage,
  known: EntryRow,
  mask: EntryMask | undefined,
): EntryMessage {
  if (mask === undefined) return message
  const merged = create(EntrySchema, entryToWire(known))
  for (const field of EntrySchema.fields) {
    if (Reflect.get(mask, field.localName) !== true) continue
    Reflect.set(merged, field.localName, Reflect.get(message, field.localName))
  }
  return merged
}
