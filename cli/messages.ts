// Between texts that people type and messages of SPIRE's API.
import type { Status } from '../proto/gen/spire/api/types/status_pb.js'
import { type ErrorCode, IdentityError } from '../spiffe/errors.ts'
import { parseSpiffeId, pathOf, trustDomainOf } from '../spiffe/id.ts'

export interface IdMessage {
  readonly trustDomain: string
  readonly path: string
}

/** Throws ERR_SPIFFE_ID. */
export function idToMessage(text: string): { trustDomain: string; path: string } {
  const id = parseSpiffeId(text)
  return { trustDomain: trustDomainOf(id), path: pathOf(id) }
}

export function idText(message: IdMessage | undefined): string {
  return message === undefined ? '' : `spiffe://${message.trustDomain}${message.path}`
}

/** `type:value`, split at the first colon. Throws ERR_BAD_REQUEST. */
export function selectorToMessage(text: string): { type: string; value: string } {
  const colon = text.indexOf(':')
  if (colon < 1 || colon === text.length - 1) {
    throw new IdentityError(
      'ERR_BAD_REQUEST',
      `selector ${JSON.stringify(text)}: write type:value, such as unix:uid:1000`,
    )
  }
  return { type: text.slice(0, colon), value: text.slice(colon + 1) }
}

export function timeText(seconds: bigint): string {
  return seconds === 0n ? 'never' : new Date(Number(seconds) * 1000).toISOString()
}

const codes: Readonly<Record<number, ErrorCode>> = {
  3: 'ERR_BAD_REQUEST',
  5: 'ERR_NOT_FOUND',
  6: 'ERR_ALREADY_EXISTS',
  7: 'ERR_DENIED',
  9: 'ERR_PRECONDITION',
}

/** Throws the first status of a batch answer that says no. */
export function demandDone(
  results: readonly ({ readonly status?: Status | undefined } | undefined)[],
): void {
  for (const result of results.length === 0 ? [undefined] : results) {
    const { code, message } = result?.status ?? { code: 14, message: 'no answer' }
    if (code !== 0) throw new IdentityError(codes[code] ?? 'ERR_UNAVAILABLE', message)
  }
}

/** The items of all pages: `list` answers with one, after the token of the page before it. */
export async function allPages<P extends { readonly nextPageToken: string }, T>(
  list: (pageToken: string) => Promise<P>,
  itemsOf: (page: P) => readonly T[],
): Promise<T[]> {
  const all: T[] = []
  let pageToken = ''
  do {
    const page = await list(pageToken)
    all.push(...itemsOf(page))
    pageToken = page.nextPageToken
  } while (pageToken !== '')
  return all
}
