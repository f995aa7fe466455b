import { describe, expect, it } from 'vitest'
import {
  destinationOf,
  headersOf,
  isRejection,
  namespaceOf,
  type RawHttp,
  readAddress,
  readHttp,
  remoteAddress,
} from '../../../policies/attributes/request.ts'
import { defaultMesh, type Mesh, meshDocument } from '../../../policies/language/mesh.ts'
import { parseSpiffeId } from '../../../spiffe/id.ts'

const istio: Mesh = { ...defaultMesh, profile: 'istio' }

const read = (raw: Partial<RawHttp>, mesh = defaultMesh) =>
  readHttp({ method: 'GET', target: '/', host: 'h', headers: [], ...raw }, mesh)

function attributes(raw: Partial<RawHttp>, mesh = defaultMesh) {
  const http = read(raw, mesh)
  if (isRejection(http)) throw new Error(http.reason)
  return http
}

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
    expect(destinationOf(parseSpiffeId(id), {})).toMatchObject({ id, namespace, labels: {} })
  })
})

describe('readHttp', () => {
  it('gives the attributes of a request line', () => {
    expect(attributes({ target: '/a%2Fb?x=1' })).toMatchObject({
      method: 'GET',
      path: '/a/b',
      readings: ['/a/b', '/a%2Fb'],
      certain: ['/a/b'],
      query: '?x=1',
      host: { raw: 'h', sent: 'h', whole: 'h', name: 'h' },
    })
  })

  it('keeps the method as sent', () => {
    expect(read({ method: 'get' })).toMatchObject({ method: 'get' })
    expect(read({ method: 'M-SEARCH' })).toMatchObject({ method: 'M-SEARCH' })
  })

  it.each(['', 'GE T', 'GET\n', 'GÉT', 'GET/', 'G(T'])('refuses the method %j', (method) => {
    const http = read({ method })
    expect(http).toEqual({ status: 400, reason: 'a malformed method' })
    expect(isRejection(http)).toBe(true)
  })

  it('refuses an ambiguous path with its reason', () => {
    expect(read({ target: '/%252f' })).toEqual({ status: 400, reason: 'a doubly encoded escape' })
  })

  it('row 61: the authority of an absolute target outranks the host', () => {
    expect(attributes({ target: 'http://deny.example.com/a?b', host: 'ok' })).toMatchObject({
      path: '/a',
      query: '?b',
      host: { name: 'deny.example.com' },
    })
  })

  it.each(['http:///a', 'http://u@h/a', 'http://h:x/a', 'http://h,i/a'])(
    'refuses %s, whose authority is no plain host',
    (target) => {
      expect(read({ target })).toMatchObject({ status: 400 })
    },
  )

  it('a host among the fields is the host when nothing else says it', () => {
    expect(attributes({ host: undefined, headers: ['Host', ' H:80\t'] }).host?.name).toBe('h')
    expect(attributes({ host: undefined, headers: ['x', 'y'] }).host).toBeUndefined()
    expect(read({ host: undefined, headers: ['host', 'a, b'] })).toMatchObject({ status: 400 })
  })
})

describe('headersOf', () => {
  it('keeps each field by itself, its name without case, its value without the space around', () => {
    const headers = headersOf(['X-Role', ' admin\t', 'x-role', 'user, guest', 'b', ''])
    expect(headers.values('x-role')).toEqual(['admin', 'user, guest'])
    expect(headers.values('b')).toEqual([''])
    expect(headers.values('c')).toEqual([])
    expect(headers.names()).toEqual(['x-role', 'b'])
  })

  it('row 95: has nothing of what only a proxy may say', () => {
    const headers = headersOf(['X-Envoy-Original-Path', '/a', 'x-spiffe-peer-id', 'b', 'x', 'y'])
    expect(headers.names()).toEqual(['x'])
    expect(headers.values('x-envoy-original-path')).toEqual([])
  })
})

describe('the address of the client (rows 85 to 93)', () => {
  const mesh: Mesh = {
    profile: 'strict',
    ...meshDocument.parse({ trustedHops: 1, trustedProxies: ['192.0.2.0/24'] }),
  }
  const remote = (peer: string | undefined, lines: readonly string[], its = mesh) =>
    remoteAddress(
      peer === undefined ? undefined : readAddress(peer, its),
      headersOf(lines.flatMap((line) => ['X-Forwarded-For', line])),
      its,
    )
  const address = (text: string, its = mesh) => readAddress(text, its)

  it.each([
    [['10.1.1.1'], '10.1.1.1'],
    [['8.8.8.8, 10.1.1.1'], '10.1.1.1'],
    [['10.1.1.1', '8.8.8.8'], '8.8.8.8'],
    [['abc'], '192.0.2.7'],
    [['010.1.1.1'], '192.0.2.7'],
    [['10.1.1.1,'], '192.0.2.7'],
    [[], '192.0.2.7'],
    [['::ffff:10.1.1.1'], '10.1.1.1'],
    [['2001:db8::1%eth0'], '192.0.2.7'],
  ])('of %j is %s', (lines, expected) => {
    expect(remote('192.0.2.7', lines)).toEqual(address(expected))
  })

  it('is the peer’s own unless the peer is a trusted proxy; Istio trusts any', () => {
    expect(remote('198.51.100.1', ['10.1.1.1'])).toEqual(address('198.51.100.1'))
    expect(remote(undefined, ['10.1.1.1'])).toBeUndefined()
    const istioMesh: Mesh = { ...mesh, profile: 'istio' }
    expect(remote('198.51.100.1', ['10.1.1.1'], istioMesh)).toEqual(address('10.1.1.1'))
    expect(remote('192.0.2.7', ['10.1.1.1'], { ...mesh, trustedHops: 0 })).toEqual(
      address('192.0.2.7'),
    )
  })

  it('row 90: a mapped address is the IPv4 address in strict', () => {
    expect(readAddress('::ffff:10.1.1.1', mesh)).toEqual({ bits: 32, value: 0x0a01_0101n })
    expect(readAddress('::ffff:10.1.1.1', istio)).toMatchObject({ bits: 128 })
  })
})
