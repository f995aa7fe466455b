// castellan issued list
import { createClient } from '@connectrpc/connect'
import {
  type IssuedCertificate,
  type ListIssuedRequest,
  Records,
} from '../../proto/gen/castellan/records/v1/records_pb.js'
import { duration } from '../../runtime/config.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import { toPem } from '../../spiffe/pem.ts'
import { answer, table } from '../context.ts'
import { optionalText, optionsOf, type Register, whole } from '../register.ts'
import { atAuthority, socketOption, withAuthority } from '../sockets.ts'

const options = atAuthority.extend({
  id: optionalText,
  serial: optionalText,
  since: optionalText,
  limit: whole,
})

/** A moment, or how long ago it was; seconds since the epoch. */
function sinceOf(text: string | undefined): bigint {
  if (text === undefined) return 0n
  const ago = duration.safeParse(text)
  const at = ago.success ? Date.now() - ago.data : Date.parse(text)
  if (!Number.isNaN(at)) return BigInt(Math.floor(at / 1000))
  throw new IdentityError(
    'ERR_BAD_REQUEST',
    `--since: ${JSON.stringify(text)} is neither a duration such as 12h nor a time such as 2026-11-21T08:00:00Z`,
  )
}

const moment = (seconds: bigint) => new Date(Number(seconds) * 1000).toISOString()

function plain({ certificate, notBefore, notAfter, ...it }: IssuedCertificate) {
  return {
    serial: it.serial,
    spiffeId: it.spiffeId,
    authorityId: it.authorityId,
    requester: it.requester,
    entryId: it.entryId,
    notBefore: moment(notBefore),
    notAfter: moment(notAfter),
    certificate: toPem(certificate, 'CERTIFICATE'),
  }
}

type Filter = Pick<ListIssuedRequest, 'spiffeId' | 'serial' | 'since'>

export function issuedCommands(register: Register): void {
  register({
    noun: 'issued',
    verb: 'list',
    about: 'Lists the certificates that were issued, the newest first: whose, by whom, for whom.',
    options: [
      ['--id <spiffe-id>', 'of this identity'],
      ['--serial <hex>', 'this certificate'],
      ['--since <when>', 'valid from then or later: 12h ago, or 2026-11-21T08:00:00Z'],
      ['--limit <n>', 'how many', '100'],
      socketOption,
    ],
    run: (context, given) => {
      const { socket, id = '', serial = '', since, limit = 100 } = optionsOf(given, options)
      const filter: Filter = { spiffeId: id, serial: serial.toLowerCase(), since: sinceOf(since) }
      return withAuthority(context, socket, async (transport) => {
        const client = createClient(Records, transport)
        const rows: ReturnType<typeof plain>[] = []
        let pageToken = ''
        do {
          const pageSize = Math.min(limit - rows.length, 500)
          const page = await client.listIssued({ ...filter, pageSize, pageToken })
          rows.push(...page.certificates.map(plain))
          pageToken = page.nextPageToken
        } while (pageToken !== '' && rows.length < limit)
        answer(context, rows, () =>
          rows.length === 0
            ? 'no certificate of that kind was issued'
            : table([
                ['SERIAL', 'SPIFFE ID', 'UNTIL', 'REQUESTER'],
                ...rows.map((it) => [it.serial, it.spiffeId, it.notAfter, it.requester]),
              ]),
        )
        return rows.length === 0 ? 1 : 0
      })
    },
  })
}
