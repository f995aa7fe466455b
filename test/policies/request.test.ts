import { describe, expect, it } from 'vitest'
import { isRejection, namespaceOf, readHttp } from '../../policies/request.ts'
import { parseSpiffeId } from '../../spiffe/id.ts'

describe('namespaceOf', () => {
  it.each([
    ['spiffe://td/ns/shop/sa/web', 'shop'],
    ['spiffe://td/ns/sa/sa/ns', 'sa'],
    ['spiffe://td', 'default'],
    ['spiffe://td/web', 'default'],
    ['spiffe://td/ns/shop', 'default'],
    ['spiffe://td/ns/shop/sa', 'default'],
    ['spiffe://td/ns/shop/sa/web/x', 'default'],
    ['spiffe://td/x/ns/shop/sa/web', 'default'],
    ['spiffe://td/NS/shop/SA/web', 'default'],
  ])('%s is in %s', (id, namespace) => {
    expect(namespaceOf(parseSpiffeId(id))).toBe(namespace)
  })
})

describe('readHttp', () => {
  it('gives the attributes of a request line', () => {
    const http = readHttp('GET', '/a%2Fb?x=1')
    expect(http).toEqual({
      method: 'GET',
      path: '/a/b',
      readings: ['/a/b', '/a%2Fb'],
      query: '?x=1',
    })
    expect(isRejection(http)).toBe(false)
  })

  it('keeps the method as sent', () => {
    expect(readHttp('get', '/')).toMatchObject({ method: 'get' })
    expect(readHttp('M-SEARCH', '/')).toMatchObject({ method: 'M-SEARCH' })
  })

  it.each(['', 'GE T', 'GET\n', 'GÉT', 'GET/', 'G(T'])('refuses the method %j', (method) => {
    const http = readHttp(method, '/')
    expect(http).toEqual({ status: 400, reason: 'a malformed method' })
    expect(isRejection(http)).toBe(true)
  })

  it('refuses an ambiguous path with its reason', () => {
    expect(readHttp('GET', '/%252f')).toEqual({ status: 400, reason: 'a doubly encoded escape' })
  })
})
