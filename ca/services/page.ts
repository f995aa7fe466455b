// Paging of lists: by id, so that a page stays where it is while the list changes.
import { badRequest } from '../wire.ts'

const largestPage = 1000
const defaultPage = 500

/** Throws ERR_BAD_REQUEST for a negative one. */
export function pageSize(size: number): number {
  if (size < 0) badRequest([{ field: 'page_size', problem: 'is negative' }])
  return size === 0 ? defaultPage : Math.min(size, largestPage)
}

/** Items after `token` (the id of the last one seen); the next token is empty on the last page. */
export function pageOf<T extends { readonly id: string }>(
  all: readonly T[],
  size: number,
  token: string,
): { items: T[]; nextPageToken: string } {
  const most = pageSize(size)
  const sorted = all.filter(({ id }) => id > token).sort((a, b) => (a.id < b.id ? -1 : 1))
  const items = sorted.slice(0, most)
  const isLast = items.length === sorted.length
  return { items, nextPageToken: isLast ? '' : (items.at(-1)?.id ?? '') }
}
