// A stock spire-server as authority: it pushes nothing, so it is asked, and what it answers is taken in as
// though it had been pushed. It knows no policies, no deny-list and no rehearsals.
import { create, toBinary } from '@bufbuild/protobuf'
import { Code, ConnectError, createClient, type Transport } from '@connectrpc/connect'
import {
  type AuthorityMessage,
  AuthorityMessageSchema,
} from '../proto/gen/castellan/control/v1/control_pb.js'
import { Bundle } from '../proto/gen/spire/api/server/bundle/v1/bundle_pb.js'
import {
  Entry,
  type SyncAuthorizedEntriesResponse,
} from '../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import type { Bundle as BundleMessage } from '../proto/gen/spire/api/types/bundle_pb.js'
import type { Entry as EntryMessage } from '../proto/gen/spire/api/types/entry_pb.js'
import { createLatest } from '../runtime/lifecycle.ts'
import { IdentityError } from '../spiffe/errors.ts'
import type { Follow } from './control.ts'

/** milliseconds, as a spire-agent has it */
export const usualInterval = 5000
const callTimeout = 30_000
const idsAtOnce = 500

const mask = {
  spiffeId: true,
  selectors: true,
  federatesWith: true,
  admin: true,
  downstream: true,
  revisionNumber: true,
  storeSvid: true,
  hint: true,
  createdAt: true,
  additionalAttributes: true,
} as const

type Known = ReadonlyMap<string, EntryMessage>
type Revision = SyncAuthorizedEntriesResponse['entryRevisions'][number]

/** An entry that was deleted and made again is another one: its revisions begin anew (R12). */
function isKnown(known: Known, { id, revisionNumber, createdAt }: Revision): boolean {
  const entry = known.get(id)
  return entry?.revisionNumber === revisionNumber && entry.createdAt === createdAt
}

/** Answers one after the other, each as the pages that it came in. */
async function* answersOf(stream: AsyncIterable<SyncAuthorizedEntriesResponse>) {
  let pages: SyncAuthorizedEntriesResponse[] = []
  for await (const page of stream) {
    pages.push(page)
    if (page.more) continue
    yield pages
    pages = []
  }
}

/** What this agent may have, by id: all of it at once, or revisions first and then what is not known yet. */
async function syncEntries(
  transport: Transport,
  known: Known,
  signal: AbortSignal,
): Promise<ReadonlyMap<string, EntryMessage>> {
  const over = new AbortController()
  const either = AbortSignal.any([signal, over.signal])
  using wanted = createLatest<readonly string[]>(either)
  async function* requests() {
    yield { outputMask: mask }
    for await (const ids of wanted) yield { ids: [...ids] }
  }
  const client = createClient(Entry, transport)
  const stream = client.syncAuthorizedEntries(requests(), {
    signal: either,
    timeoutMs: callTimeout,
  })
  const answers = answersOf(stream)
  const next = async () => {
    const { value } = await answers.next()
    if (value) return value
    throw new IdentityError('ERR_UNAVAILABLE', 'the authority ended the synchronisation')
  }
  try {
    const first = await next()
    const entries = new Map(first.flatMap((page) => page.entries.map((it) => [it.id, it])))
    const revisions = first.flatMap(({ entryRevisions }) => entryRevisions)
    const missing = revisions.filter((it) => !isKnown(known, it)).map(({ id }) => id)
    for (const { id } of revisions) {
      const entry = known.get(id)
      if (entry !== undefined) entries.set(id, entry)
    }
    for (let at = 0; at < missing.length; at += idsAtOnce) {
      wanted.push(missing.slice(at, at + idsAtOnce))
      for (const page of await next()) for (const it of page.entries) entries.set(it.id, it)
    }
    return entries
  } finally {
    over.abort()
    await answers.return(undefined).catch(() => {})
  }
}

/** The bundles that entries federate with; one that is not there is not there. */
async function federatedBundles(
  transport: Transport,
  entries: Iterable<EntryMessage>,
  signal: AbortSignal,
): Promise<BundleMessage[]> {
  const names = new Set([...entries].flatMap(({ federatesWith }) => federatesWith))
  const client = createClient(Bundle, transport)
  const ask = async (trustDomain: string) => {
    try {
      const options = { signal, timeoutMs: callTimeout }
      return [await client.getFederatedBundle({ trustDomain }, options)]
    } catch (error) {
      if (ConnectError.from(error).code === Code.NotFound) return []
      throw error
    }
  }
  return (await Promise.all([...names].sort().map(ask))).flat()
}

async function ask(transport: Transport, known: Known, signal: AbortSignal) {
  const entries = await syncEntries(transport, known, signal)
  const options = { signal, timeoutMs: callTimeout }
  const bundle = await createClient(Bundle, transport).getBundle({}, options)
  const bundles = await federatedBundles(transport, entries.values(), signal)
  const message = create(AuthorityMessageSchema, {
    snapshot: true,
    // in an order of ours: theirs says nothing
    entries: [...entries.values()].sort((a, b) => (a.id < b.id ? -1 : 1)),
    bundle,
    federated: { bundles },
  })
  return { entries, message }
}

const bytesOf = (message: AuthorityMessage) =>
  Buffer.from(toBinary(AuthorityMessageSchema, message))

/** Asks every `interval` milliseconds. */
export function followSpire(interval = usualInterval): Follow {
  return async ({ transport, knowledge, clock, signal }, { connected, persist }) => {
    let known: Known = new Map()
    let told = Buffer.alloc(0)
    for (;;) {
      const { entries, message } = await ask(transport, known, signal)
      known = entries
      const bytes = bytesOf(message)
      if (!bytes.equals(told)) {
        knowledge.apply(message)
        persist()
        told = bytes
      }
      connected()
      await clock.sleep(interval, { signal })
    }
  }
}
