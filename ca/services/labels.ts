// castellan.entry.v1.Labels
import { Labels } from '../../proto/gen/castellan/entry/v1/labels_pb.js'
import { type Service, service } from '../../runtime/grpc/service.ts'
import type { Log } from '../../runtime/log.ts'
import type { Authority } from '../authority.ts'
import { nameOf, type Peer } from '../callers.ts'
import { changedLabels } from '../labels.ts'
import type { EntryRow } from '../store/model.ts'
import { hasLabels, labelsToWire } from '../wire.ts'
import { pageOf } from './page.ts'
import { bounded } from './status.ts'

export function labelsService({ registry, store }: Authority, log: Log): Service<Peer> {
  const { entries } = registry

  function* wanted(ids: readonly string[]): Generator<EntryRow> {
    if (ids.length === 0) return yield* entries.all()
    for (const id of new Set(ids)) {
      const entry = entries.get(id)
      if (entry !== undefined) yield entry
    }
  }

  return service<typeof Labels, Peer>(Labels, {
    listLabels({ entryIds, pageSize, pageToken }) {
      const found = [...wanted(bounded(entryIds, 'entry_ids'))].filter(hasLabels)
      const { items, nextPageToken } = pageOf(found, pageSize, pageToken)
      return { entries: items.map(labelsToWire), nextPageToken }
    },
    async updateLabels({ entryId, set, remove }, { peer }) {
      const entry = await store.entries.update(entryId, (known) => ({
        ...known,
        labels: changedLabels(known.labels, { set, remove }),
      }))
      const { id, spiffeId, labels } = entry
      log.info({ audit: true, caller: nameOf(peer), entry: id, spiffeId, labels }, 'labels changed')
      return labelsToWire(entry)
    },
  })
}
