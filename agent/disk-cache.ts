// What the agent keeps so that it can serve without its authority: what it was told, what it holds for workloads,
// and which connections of proxies it has ended. Sealed files, each replaced as a whole. What cannot be read is thrown away, never fatal.
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fromBinary, toBinary } from '@bufbuild/protobuf'
import { z } from 'zod'
import {
  type AuthorityMessage,
  AuthorityMessageSchema,
} from '../proto/gen/castellan/control/v1/control_pb.js'
import type { Clock } from '../runtime/clock.ts'
import { removeUnfinished, writeStreamDurably } from '../runtime/durable.ts'
import { createLatest, type Running, run } from '../runtime/lifecycle.ts'
import type { Log } from '../runtime/log.ts'
import { drawnSecret, type SealingSecret, seal, unseal } from '../runtime/sealed.ts'
import { explain } from '../spiffe/errors.ts'
import { type KeptCuts, keptCuts } from './proxies/cuts.ts'

const base64 = z.string().transform((text): Uint8Array => Buffer.from(text, 'base64'))
const keptSvid = z.strictObject({
  entryId: z.string(),
  revision: z.string().transform(BigInt),
  chain: z.array(base64).min(1),
  key: base64,
  receivedAt: z.number(),
})
const keptToken = z.strictObject({
  /** what it was asked for */
  key: z.string(),
  token: z.string(),
  /** PKCS#8 of a WIT-SVID's holder */
  holder: base64.optional(),
  receivedAt: z.number(),
  expiresAt: z.number(),
})
const keptIdentities = z.strictObject({ svids: z.array(keptSvid), tokens: z.array(keptToken) })

export type KeptSvid = z.infer<typeof keptSvid>
export type KeptToken = z.infer<typeof keptToken>
export type KeptIdentities = z.infer<typeof keptIdentities>

const nothing: KeptIdentities = { svids: [], tokens: [] }

/** What is to be in each file now. */
export interface Kept {
  readonly knowledge: () => AuthorityMessage
  readonly identities: () => KeptIdentities
  readonly cuts: () => KeptCuts
}

export interface DiskCache {
  knowledge(): AuthorityMessage | undefined
  identities(): KeptIdentities
  cuts(): KeptCuts
  /** Writes what changes, until it is disposed; the last change too. */
  follow(kept: Kept, onChange: (part: Part, changed: () => void) => Disposable): Running
  /** why the newest state is not on the disk; undefined when it is */
  trouble(): string | undefined
  /** Throws away what an identity that is gone has left. */
  clear(): void
  /** The same for good: nothing is written any more. */
  forget(): void
}

export type Part = (typeof parts)[number]

export interface DiskCacheOptions {
  readonly folder: string
  readonly secret: SealingSecret
  readonly clock: Clock
  readonly log: Log
}

const parts = ['knowledge', 'identities', 'cuts'] as const
/** Milliseconds until the next write of a file after one that took so long: a busy node does not write all the time. */
const restAfter = (took: number) => Math.min(4 * took, 200)
const afterFailure = 5000

const pathIn = (folder: string, part: Part) => join(folder, `${part}.sealed`)

function clear(folder: string): void {
  for (const part of parts) rmSync(pathIn(folder, part), { force: true })
}

const encoded = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64')

function identitiesText({ svids, tokens }: KeptIdentities): string {
  return JSON.stringify({
    svids: svids.map(({ revision, chain, key, ...rest }) => ({
      ...rest,
      revision: String(revision),
      chain: chain.map(encoded),
      key: encoded(key),
    })),
    tokens: tokens.map(({ holder, ...rest }) => ({ ...rest, holder: holder && encoded(holder) })),
  })
}

function contentOf(part: Part, kept: Kept): Uint8Array {
  switch (part) {
    case 'knowledge':
      return toBinary(AuthorityMessageSchema, kept.knowledge())
    case 'identities':
      return Buffer.from(identitiesText(kept.identities()))
    case 'cuts':
      return Buffer.from(JSON.stringify(kept.cuts()))
  }
}

const jsonIn = (bytes: Buffer): unknown => JSON.parse(bytes.toString('utf8'))

export function openDiskCache({ folder, secret, clock, log }: DiskCacheOptions): DiskCache {
  const troubles = new Map<Part, string>()
  // an agent that is not wanted any more keeps nothing, also not what was about to be written
  let isForgotten = false
  const pathOf = (part: Part) => pathIn(folder, part)
  const purposeOf = (part: Part) => `agent cache of ${part}`

  function load<T>(part: Part, parse: (bytes: Buffer) => T): T | undefined {
    const path = pathOf(part)
    if (!existsSync(path)) return undefined
    try {
      return parse(unseal(readFileSync(path), secret, purposeOf(part), drawnSecret))
    } catch (error) {
      log.error({ err: error, path }, 'what this agent had kept cannot be read, and is thrown away')
      rmSync(path, { force: true })
      return undefined
    }
  }

  /** Whether it is on the disk now. */
  async function write(part: Part, kept: Kept): Promise<boolean> {
    if (isForgotten) return true
    const sealed = seal(contentOf(part, kept), secret, purposeOf(part), drawnSecret)
    try {
      await writeStreamDurably(pathOf(part), oneOf(sealed), { mode: 0o600 })
      // forgotten while it was written
      if (isForgotten) rmSync(pathOf(part), { force: true })
      if (troubles.delete(part)) log.info({ part }, 'what this agent keeps is on the disk again')
      return true
    } catch (error) {
      if (!troubles.has(part))
        log.error({ err: error, part }, 'what this agent keeps is in memory only')
      troubles.set(part, explain(error))
      return false
    }
  }

  async function followPart(
    part: Part,
    kept: Kept,
    onChange: (part: Part, changed: () => void) => Disposable,
    signal: AbortSignal,
  ): Promise<void> {
    using wake = createLatest<true>(signal)
    let isDirty = false
    using _ = onChange(part, () => {
      isDirty = true
      wake.push(true)
    })
    for await (const __ of wake) {
      isDirty = false
      const began = clock.monotonic()
      const isWritten = await write(part, kept)
      const rest = isWritten ? restAfter(clock.monotonic() - began) : afterFailure
      await clock.sleep(rest, { signal }).catch(() => {})
      if (isWritten) continue
      isDirty = true
      wake.push(true)
    }
    if (isDirty) await write(part, kept)
  }

  return {
    knowledge: () => load('knowledge', (bytes) => fromBinary(AuthorityMessageSchema, bytes)),
    identities: () => load('identities', (bytes) => keptIdentities.parse(jsonIn(bytes))) ?? nothing,
    cuts: () => load('cuts', (bytes) => keptCuts.parse(jsonIn(bytes))) ?? {},
    follow: (kept, onChange) =>
      run(async (signal) => {
        tidy(folder, log)
        await Promise.all(parts.map((part) => followPart(part, kept, onChange, signal)))
      }),
    trouble: () => [...troubles.values()][0],
    forget() {
      isForgotten = true
      clear(folder)
    },
    clear: () => clear(folder),
  }
}

/** An agent that was killed may have been writing. One that still does would have the socket of this one. */
function tidy(folder: string, log: Log): void {
  try {
    removeUnfinished(folder)
  } catch (error) {
    log.warn({ err: error, folder }, 'what a killed agent had begun to write stays there')
  }
}

async function* oneOf(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes
}
