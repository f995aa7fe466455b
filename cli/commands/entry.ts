// castellan entry create, list, show, update, label, delete
import { type Client, createClient, type Transport } from '@connectrpc/connect'
import { z } from 'zod'
import { Entry } from '../../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import type { Entry as EntryMessage } from '../../proto/gen/spire/api/types/entry_pb.js'
import { SelectorMatch_MatchBehavior as Behaviour } from '../../proto/gen/spire/api/types/selector_pb.js'
import type { Status } from '../../proto/gen/spire/api/types/status_pb.js'
import { IdentityError } from '../../spiffe/errors.ts'
import { answer, type Context, table } from '../context.ts'
import { type LabelsOf, labelText, readLabels } from '../entry-labels.ts'
import {
  allPages,
  demandDone,
  idText,
  idToMessage,
  selectorToMessage,
  timeText,
} from '../messages.ts'
import {
  flag,
  type Given,
  optionalText,
  optionsOf,
  type Register,
  texts,
  whole,
} from '../register.ts'
import { socketOption, withAuthority } from '../sockets.ts'
import { entryLabelCommand } from './entry-label.ts'

const fields = z.object({
  id: optionalText,
  spiffeId: optionalText,
  parentId: optionalText,
  selector: texts,
  ttl: whole,
  dns: texts,
  federatesWith: texts,
  hint: optionalText,
  expires: whole,
  admin: flag,
  downstream: flag,
  socket: optionalText,
})
type Fields = z.infer<typeof fields>

const fieldOptions = [
  ['--spiffe-id <id>', 'the identity that the workload gets'],
  ['--parent-id <id>', "the agent's ID, or an ID that the agent has"],
  [
    '--selector <type:value...>',
    'what the workload has to be: unix:uid:1000, unix:gid:…, unix:path:…, unix:sha256:…',
  ],
  ['--ttl <seconds>', 'lifetime of its X.509-SVIDs'],
  ['--dns <name...>', 'DNS names in its certificates'],
  ['--federates-with <trust-domain...>', 'foreign bundles that it receives'],
  ['--hint <text>', 'which of several identities this is, for the workload'],
  ['--expires <seconds>', 'when the entry ends, seconds since the epoch'],
  ['--admin', 'the workload may administer the authority'],
  ['--downstream', 'the workload is a downstream authority'],
] as const

/** Message fields for those options that were given. */
function given(options: Fields) {
  const {
    spiffeId,
    parentId,
    selector,
    ttl,
    dns,
    federatesWith,
    hint,
    expires,
    admin,
    downstream,
  } = options
  return {
    ...(spiffeId === undefined ? {} : { spiffeId: idToMessage(spiffeId) }),
    ...(parentId === undefined ? {} : { parentId: idToMessage(parentId) }),
    ...(selector === undefined ? {} : { selectors: selector.map(selectorToMessage) }),
    ...(ttl === undefined ? {} : { x509SvidTtl: ttl }),
    ...(dns === undefined ? {} : { dnsNames: dns }),
    ...(federatesWith === undefined ? {} : { federatesWith }),
    ...(hint === undefined ? {} : { hint }),
    ...(expires === undefined ? {} : { expiresAt: BigInt(expires) }),
    ...(admin === undefined ? {} : { admin }),
    ...(downstream === undefined ? {} : { downstream }),
  }
}

const noLabels: LabelsOf = {}

function plain(entry: EntryMessage, labels = noLabels) {
  return {
    id: entry.id,
    spiffeId: idText(entry.spiffeId),
    parentId: idText(entry.parentId),
    selectors: entry.selectors.map(({ type, value }) => `${type}:${value}`),
    ttl: entry.x509SvidTtl,
    dnsNames: entry.dnsNames,
    federatesWith: entry.federatesWith,
    hint: entry.hint,
    admin: entry.admin,
    downstream: entry.downstream,
    labels,
    expiresAt: timeText(entry.expiresAt),
    createdAt: timeText(entry.createdAt),
    revision: Number(entry.revisionNumber),
  }
}

function card(entry: EntryMessage, labels = noLabels): string {
  return Object.entries({ ...plain(entry), labels: labelText(labels) })
    .map(
      ([name, value]) => [name, Array.isArray(value) ? value.join(', ') : String(value)] as const,
    )
    .filter(([, text]) => text !== '')
    .map(([name, text]) => `${name.padEnd(14)}${text}`)
    .join('\n')
}

export function listEntries(client: Client<typeof Entry>, filter: object): Promise<EntryMessage[]> {
  return allPages(
    (pageToken) => client.listEntries({ filter, pageSize: 1000, pageToken }),
    ({ entries }) => entries,
  )
}

function withEntries(
  context: Context,
  { socket }: Fields,
  work: (client: Client<typeof Entry>, transport: Transport) => Promise<void>,
): Promise<0> {
  return withAuthority(context, socket, async (transport) => {
    await work(createClient(Entry, transport), transport)
    return 0 as const
  })
}

/** Of the one entry that was asked about. */
function answerEntry(
  context: Context,
  [result]: readonly {
    readonly status?: Status | undefined
    readonly entry?: EntryMessage | undefined
  }[],
): void {
  demandDone([result])
  const made = result?.entry
  if (made !== undefined) answer(context, plain(made), () => card(made))
}

function idArgument({ args }: Given): string {
  const [id] = args
  if (id === undefined)
    throw new IdentityError(
      'ERR_BAD_REQUEST',
      'which entry? Give its id; castellan entry list shows them',
    )
  return id
}

function readVerbs(register: Register): void {
  register({
    noun: 'entry',
    verb: 'list',
    about: 'Lists registration entries.',
    options: [
      ['--spiffe-id <id>', 'only those of this identity'],
      ['--parent-id <id>', 'only those below this parent'],
      ['--selector <type:value...>', 'only those with at least these selectors'],
      socketOption,
    ],
    run(context, it) {
      const options = optionsOf(it, fields)
      return withEntries(context, options, async (client, transport) => {
        const { spiffeId, parentId, selectors } = given(options)
        const filter = {
          ...(spiffeId === undefined ? {} : { bySpiffeId: spiffeId }),
          ...(parentId === undefined ? {} : { byParentId: parentId }),
          ...(selectors === undefined
            ? {}
            : { bySelectors: { selectors, match: Behaviour.MATCH_SUPERSET } }),
        }
        const entries = await listEntries(client, filter)
        const labels = await readLabels(
          transport,
          entries.map(({ id }) => id),
        )
        const all = entries.map((entry) => plain(entry, labels.get(entry.id)))
        answer(context, all, () =>
          entries.length === 0
            ? 'no entries; make one with: castellan entry create --spiffe-id … --parent-id … --selector …'
            : table([
                ['ID', 'SPIFFE ID', 'PARENT', 'SELECTORS', 'LABELS'],
                ...all.map(({ id, spiffeId, parentId, selectors, labels }) => [
                  ...[id, spiffeId, parentId, selectors.join(' ')],
                  labelText(labels),
                ]),
              ]),
        )
      })
    },
  })
  register({
    noun: 'entry',
    verb: 'show',
    about: 'Shows one entry.',
    positional: ['<id>'],
    options: [socketOption],
    run(context, it) {
      return withEntries(context, optionsOf(it, fields), async (client, transport) => {
        const entry = await client.getEntry({ id: idArgument(it) })
        const labels = (await readLabels(transport, [entry.id])).get(entry.id)
        answer(context, plain(entry, labels), () => card(entry, labels))
      })
    },
  })
}

export function entryCommands(register: Register): void {
  register({
    noun: 'entry',
    verb: 'create',
    about:
      'Makes a registration entry: workloads with these selectors, below this parent, get this identity.',
    options: [
      ['--id <id>', 'id of the entry; made up when left out'],
      ...fieldOptions,
      socketOption,
    ],
    run(context, it) {
      const options = optionsOf(it, fields)
      return withEntries(context, options, async (client) => {
        const entry = { ...given(options), ...(options.id === undefined ? {} : { id: options.id }) }
        const { results } = await client.batchCreateEntry({ entries: [entry] })
        answerEntry(context, results)
      })
    },
  })
  readVerbs(register)
  entryLabelCommand(register)
  register({
    noun: 'entry',
    verb: 'update',
    about: 'Changes the given fields of an entry; agents learn of it at once.',
    positional: ['<id>'],
    options: [...fieldOptions, socketOption],
    run(context, it) {
      const options = optionsOf(it, fields)
      return withEntries(context, options, async (client) => {
        const changes = given(options)
        const inputMask = Object.fromEntries(Object.keys(changes).map((name) => [name, true]))
        const { results } = await client.batchUpdateEntry({
          entries: [{ id: idArgument(it), ...changes }],
          inputMask,
        })
        answerEntry(context, results)
      })
    },
  })
  register({
    noun: 'entry',
    verb: 'delete',
    about: 'Deletes an entry; its workloads lose the identity.',
    positional: ['<id>'],
    options: [socketOption],
    run(context, it) {
      return withEntries(context, optionsOf(it, fields), async (client) => {
        const id = idArgument(it)
        const { results } = await client.batchDeleteEntry({ ids: [id] })
        demandDone(results)
        answer(context, { deleted: id }, () => `deleted ${id}`)
      })
    },
  })
}
