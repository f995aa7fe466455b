// castellan.records.v1.Records
import { Records } from '../../proto/gen/castellan/records/v1/records_pb.js'
import { type Service, service } from '../../runtime/grpc/service.ts'
import type { Log } from '../../runtime/log.ts'
import { serialFromHex } from '../../spiffe/certificate.ts'
import { explain } from '../../spiffe/errors.ts'
import { parseSpiffeId } from '../../spiffe/id.ts'
import type { Authority } from '../authority.ts'
import { backupOf } from '../backup.ts'
import { nameOf, type Peer } from '../callers.ts'
import type { IssuedRow } from '../store/model.ts'
import { badRequest, secondsOf } from '../wire.ts'
import { pageSize } from './page.ts'

function idOf(text: string) {
  try {
    return parseSpiffeId(text)
  } catch (error) {
    return badRequest([{ field: 'spiffe_id', problem: explain(error) }])
  }
}

function serialOf(text: string) {
  return serialFromHex(text) ?? badRequest([{ field: 'serial', problem: 'is not hexadecimal' }])
}

function placeOf(token: string): number {
  if (/^\d{1,15}$/.test(token)) return Number(token)
  return badRequest([{ field: 'page_token', problem: 'is not one that was given out' }])
}

function toWire({ notBefore, notAfter, ...row }: IssuedRow) {
  return { ...row, notBefore: secondsOf(notBefore), notAfter: secondsOf(notAfter) }
}

export function recordsService({ store, state }: Authority, log: Log): Service<Peer> {
  return service<typeof Records, Peer>(Records, {
    async *backup(_, { peer }) {
      log.warn({ audit: true, caller: nameOf(peer) }, 'an operator takes a backup')
      for await (const bytes of backupOf(store, state)) yield { bytes: new Uint8Array(bytes) }
    },
    async listIssued({ spiffeId, serial, since, pageSize: size, pageToken }) {
      const limit = pageSize(size)
      const { rows, next } = await store.issuance.list({
        ...(spiffeId === '' ? {} : { spiffeId: idOf(spiffeId) }),
        ...(serial === '' ? {} : { serial: serialOf(serial) }),
        ...(pageToken === '' ? {} : { before: placeOf(pageToken) }),
        since: Number(since) * 1000,
        limit,
      })
      const nextPageToken = next === undefined ? '' : String(next)
      return { certificates: rows.map(toWire), nextPageToken }
    },
  })
}
