// The policy sets that were in force, the newest last; what is older than the last twenty is gone.
import { IdentityError } from '../../../spiffe/errors.ts'
import { policiesRow, policyVersionRow } from '../rows.ts'
import type { PolicyTable } from '../store.ts'
import type { Session } from './session.ts'

const keptVersions = 20
const newest = 'SELECT version, files FROM policies ORDER BY version DESC LIMIT 1'

export function policyTable({ db, change }: Session): PolicyTable {
  return {
    async current() {
      const row = await db.read.get(newest)
      return row === undefined ? { version: 0, files: [] } : policiesRow.parse(row)
    },
    async find(version) {
      const row = await db.read.get('SELECT * FROM policies WHERE version = ?', version)
      return row && policiesRow.parse(row)
    },
    async versions() {
      const sql = 'SELECT version, at, caller, message FROM policies ORDER BY version DESC'
      return (await db.read.all(sql)).map((row) => policyVersionRow.parse(row))
    },
    set: (files, { at, caller, message, basedOn }) =>
      change(async (tx, emit) => {
        const before = Number((await tx.get(newest))?.version ?? 0)
        if (basedOn !== undefined && before !== basedOn) {
          const text = `policy version ${before} has taken the place of ${basedOn}; look at it and try again`
          throw new IdentityError('ERR_CONFLICT', text)
        }
        const sql =
          'INSERT INTO policies (at, files, caller, message) VALUES (?, ?, ?, ?) RETURNING version'
        const row = await tx.get(sql, at, JSON.stringify(files), caller, message)
        await tx.run(
          `DELETE FROM policies WHERE version NOT IN
             (SELECT version FROM policies ORDER BY version DESC LIMIT ${keptVersions})`,
        )
        const version = Number(row?.version)
        await emit('policies', String(version))
        return { version, files }
      }),
  }
}
