import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { pageOf } from '../../../ca/services/page.ts'
import { refusalOf } from '../../support/refusal.ts'

const items = (count: number) =>
  Array.from({ length: count }, (_, i) => ({ id: String(i).padStart(5, '0') }))

function walk(all: readonly { readonly id: string }[], size: number): string[][] {
  const pages: string[][] = []
  let token = ''
  do {
    const { items: page, nextPageToken } = pageOf(all, size, token)
    pages.push(page.map(({ id }) => id))
    token = nextPageToken
  } while (token !== '')
  return pages
}

describe('pages', () => {
  it('hold each item once, in order, whatever their size', () => {
    const ids = fc.uniqueArray(fc.stringMatching(/^[a-z0-9-]{1,8}$/), { maxLength: 40 })
    fc.assert(
      fc.property(ids, fc.integer({ min: 1, max: 50 }), (all, size) => {
        const pages = walk(
          all.map((id) => ({ id })),
          size,
        )
        expect(pages.flat()).toEqual([...all].sort((a, b) => (a < b ? -1 : 1)))
        for (const page of pages.slice(0, -1)) expect(page).toHaveLength(size)
      }),
    )
  })

  it('end with an empty token, exactly at the last item', () => {
    expect(walk(items(4), 2).map((page) => page.length)).toEqual([2, 2])
    expect(walk([], 2)).toEqual([[]])
  })

  it('R8 are bounded, whatever size is asked for', () => {
    expect(pageOf(items(1200), 0, '').items).toHaveLength(500)
    expect(pageOf(items(1200), 2 ** 31 - 1, '').items).toHaveLength(1000)
    expect(refusalOf(() => pageOf(items(1), -1, ''))).toEqual({
      code: 'ERR_BAD_REQUEST',
      message: 'page_size: is negative',
    })
  })

  it('go on where they were while the list changes', () => {
    const { nextPageToken } = pageOf(items(10), 4, '')
    const changed = items(10).filter(({ id }) => id !== '00003' && id !== '00005')
    expect(pageOf(changed, 3, nextPageToken).items.map(({ id }) => id)).toEqual([
      '00004',
      '00006',
      '00007',
    ])
  })
})
