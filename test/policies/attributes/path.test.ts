import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { readPath as readPathIn } from '../../../policies/attributes/path.ts'
import { isRejection, readHttp } from '../../../policies/attributes/request.ts'
import { decide } from '../../../policies/decide.ts'
import {
  type Backend,
  defaultMesh,
  type PathNormalization,
} from '../../../policies/language/mesh.ts'
import { httpRequest, policySet, policyText } from '../../support/policy-text.ts'

const readPath = (target: string) => readPathIn(target, defaultMesh)

const forwardedOf = (target: string) => {
  const reading = readPath(target)
  return reading.ok ? reading.forwarded : `refused: ${reading.reason}`
}

const hexOf = (byte: number) => `%${byte.toString(16).padStart(2, '0')}`
const bytes = Array.from({ length: 255 }, (_, i) => i + 1)

// §5.3; what a DENY leaves is allowed by the second policy, for strict denies when nothing matches
const fixtures = {
  A: policySet(policyText('[{ to: [{ operation: { methods: [GET], paths: [/public*] } }] }]')),
  D: policySet(
    policyText('[{ to: [{ operation: { paths: [/admin, /admin/*] } }] }]', { action: 'DENY' }),
    policyText('[{}]', { name: 'rest' }),
  ),
  DX: policySet(
    policyText('[{ to: [{ operation: { paths: [/admin] } }] }]', { action: 'DENY' }),
    policyText('[{}]', { name: 'rest' }),
  ),
}

function verdict(fixture: keyof typeof fixtures, line: string): 'allow' | 'deny' | number {
  const [method = '', ...target] = line.split(' ')
  const raw = { method, target: target.join(' '), host: undefined, headers: [] }
  const http = readHttp(raw, defaultMesh)
  if (isRejection(http)) return http.status
  const request = { ...httpRequest('GET /'), http }
  return decide(fixtures[fixture], request).allow ? 'allow' : 'deny'
}

describe('path rows of authorization.md §5.4', () => {
  it.each([
    [1, 'A', 'allow', ['/public', '/public?x=/private', '/public/../public']],
    [3, 'A', 'deny', ['/public/../private', '/public/./../private', '/public/.././private']],
    [5, 'A', 'deny', ['/public\\..\\private']],
    [6, 'A', 'deny', ['/public/..%2fprivate', '/public/..%5cprivate']],
    [10, 'A', 400, ['/public/%c0%ae%c0%ae/private']],
    [11, 'A', 400, ['/public%00/../private']],
    [13, 'A', 'deny', ['/PUBLIC']],
    [15, 'D', 'deny', ['/admin', '/admin/', '/admin?x']],
    [16, 'DX', 'allow', ['/admin/']],
    [18, 'D', 'allow', ['/admin%23x', '/admin%3fx']],
    [20, 'D', 'deny', ['/%2Fadmin', '/%5Cadmin']],
    [21, 'D', 400, ['\\admin']],
    [23, 'D', 'deny', ['/./admin', '/admin/.', '/a/../../../admin', '/x//../../admin']],
    [25, 'D', 'deny', ['/%61dmin', '/adm%69n']],
    [26, 'D', 'allow', ['/Admin', '/ADMIN', '/%41dmin']],
    [28, 'D', 'allow', ['/admin%2e']],
    [30, 'D', 400, ['/admin%0a', '/admin%0d', '/admin%09']],
    [31, 'D', 400, ['/%252Fadmin']],
    [33, 'D', 'deny', ['http://h/admin', 'http://h/%61dmin?x', 'HTTP://h/admin']],
    [33, 'D', 'allow', ['http://h', 'http://h?/admin']],
    [35, 'D', 400, ['', 'admin']],
    [36, 'D', 400, ['/admin\xff']],
  ] as const)('row %i on %s: %s', (_, fixture, expected, targets) => {
    for (const target of targets) expect(verdict(fixture, `GET ${target}`), target).toBe(expected)
  })

  it('row 13: POST is not GET', () => {
    expect(verdict('A', 'POST /public')).toBe('deny')
  })

  it('row 38: a gRPC method is a path', () => {
    const set = policySet(policyText('[{ to: [{ operation: { paths: [/pkg.Svc/*] } }] }]'))
    expect(decide(set, httpRequest('POST /pkg.Svc/Method')).allow).toBe(true)
    expect(decide(set, httpRequest('POST /pkg.Svc2/Method')).allow).toBe(false)
  })

  it.each([
    [40, '/app/\\/\\/\\admin', '/app/admin'],
    [41, '/%2Fapp%5cadmin%5Cabc', '/app/admin/abc'],
    [43, '/app/%2f', '/app/'],
    [43, '/app%2f/', '/app/'],
  ])('row %i: %s is forwarded as %s', (_, target, forwarded) => {
    expect(forwardedOf(target)).toBe(forwarded)
  })

  it('row 45: of all escapes only unreserved ones and slashes are decoded', () => {
    const decoded = bytes.filter((byte) => forwardedOf(`/admin${hexOf(byte)}`).startsWith('/admin'))
    const changed = decoded.filter((byte) => !forwardedOf(`/admin${hexOf(byte)}`).includes('%'))
    const unreserved = bytes.filter((b) => /[A-Za-z0-9._~-]/.test(String.fromCharCode(b)))
    expect(changed).toEqual([...unreserved, 0x2f, 0x5c].sort((a, b) => a - b))
    // the others are controls and lone bytes of longer UTF-8 sequences
    const refused = bytes.filter((byte) => !decoded.includes(byte))
    expect(refused).toEqual(bytes.filter((byte) => byte < 0x20 || byte >= 0x7f))
  })
})

describe('readPath', () => {
  it.each([
    ['/app//../admin', '/app/admin'],
    ['/..', '/'],
    ['/a/..', '/'],
    ['/a/.', '/a/'],
    ['/..;/x', '/..;/x'],
    ['/gr%c3%bc%c3%9fe', '/gr%C3%BC%C3%9Fe'],
    ['/a%2e%2E/b', '/a../b'],
    ['/x/..%2f..%2f', '/'],
  ])('%s is forwarded as %s', (target, forwarded) => {
    expect(forwardedOf(target)).toBe(forwarded)
  })

  it('keeps the query apart, as it was sent', () => {
    expect(readPath('/a/../b?x=/../y&z=%00')).toMatchObject({
      forwarded: '/b',
      query: '?x=/../y&z=%00',
    })
    expect(readPath('/b')).toMatchObject({ query: '' })
  })

  it('has the reading of a backend that does not decode slashes', () => {
    expect(readPath('/a%2fb')).toMatchObject({ readings: ['/a/b', '/a%2Fb'] })
    expect(readPath('/a/b')).toMatchObject({ readings: ['/a/b'] })
  })

  it.each([
    ['/a b', 'bytes in the path that must be escaped'],
    ['/a#b', 'a fragment in the path'],
    ['/a?b#c', 'a fragment in the path'],
    ['*', 'a path that does not start with a slash'],
    ['/%4', 'a broken percent escape'],
    ['/%zz', 'a broken percent escape'],
    ['/%7F', 'an escaped control byte'],
    ['/%252e', 'a doubly encoded escape'],
    ['/%25%32%65', 'a doubly encoded escape'],
    ['/%25%32%66/../a', 'a doubly encoded escape'],
    ['/%25%3261', 'a doubly encoded escape'],
    ['/%ED%A0%80', 'an escaped byte sequence that is not UTF-8'],
  ])('%.20s is refused: %s', (target, reason) => {
    expect(readPath(target)).toEqual({ ok: false, status: 400, reason })
  })

  it('takes a target of 8192 bytes and none that is longer', () => {
    expect(forwardedOf(`/${'a'.repeat(8191)}`)).toHaveLength(8192)
    const reason = 'a path longer than 8192 bytes'
    for (const target of [`/${'a'.repeat(8192)}`, `/?${'a'.repeat(8191)}`]) {
      expect(readPath(target)).toEqual({ ok: false, status: 414, reason })
    }
  })

  const pieces = ['/', '.', '..', '\\', '%2f', '%5C', '%2e', '%25', '%32', '%35', '%66', '%c3%bc']
  const target = fc
    .array(fc.oneof(fc.constantFrom(...pieces, 'a', ';'), fc.string({ maxLength: 2 })))
    .map((parts) => `/${parts.join('')}`)

  it('is stable: what is forwarded reads as itself, in one way', () => {
    let read = 0
    fc.assert(
      fc.property(target, (text) => {
        const first = readPath(text)
        if (!first.ok) return
        read++
        expect(first.readings).toContain(first.forwarded)
        expect(first.forwarded).not.toMatch(/\/\/|\\|\/\.\.?(\/|$)|[?#]/)
        const { forwarded } = first
        expect(readPath(forwarded)).toEqual({
          ok: true,
          forwarded,
          readings: [forwarded],
          certain: [forwarded],
          query: '',
        })
      }),
      { numRuns: 5000 },
    )
    expect(read).toBeGreaterThan(500)
  })
})

describe('the backend reads what it is forwarded in its own way', () => {
  const under = (backend: Backend, target: string) => {
    const reading = readPathIn(target, { ...defaultMesh, backend })
    if (!reading.ok) throw new Error(reading.reason)
    return reading
  }

  it.each([
    ['servlet', '/public/..;/private', '/private'],
    ['servlet', '/public/..;x=1,y/private', '/private'],
    ['servlet', '/admin;v=1', '/admin'],
    ['servlet', '/admin,x/y', '/admin/y'],
    ['servlet', '/;/admin', '/admin'],
    // slashes merged before dot segments are removed, and after
    ['servlet', '/a/;x/..;/private', '/private'],
    ['servlet', '/a/;x/..;/private', '/a/private'],
    ['windows', '/admin.', '/admin'],
    ['windows', '/admin%20', '/admin'],
    ['windows', '/admin.%20./x', '/admin/x'],
    ['windows', '/public/..%20/private', '/private'],
    ['windows', '/public/..%20/private', '/public/private'],
    ['windows', '/public/.../private', '/public/private'],
  ] as const)('%s: %s may be %s', (backend, target, reading) => {
    const { forwarded, readings, certain } = under(backend, target)
    expect(forwarded).toBe(target)
    expect(readings).toContain(reading)
    expect(certain).toContain(reading)
    expect(certain).toContain(forwarded)
  })

  it('a path without anything special has one reading', () => {
    for (const backend of ['servlet', 'windows', 'caseless', 'rfc3986'] as const) {
      expect(under(backend, '/a/b.txt')).toMatchObject({
        readings: ['/a/b.txt'],
        certain: ['/a/b.txt'],
      })
    }
  })
})

describe('the levels of Istio (§5.1)', () => {
  const at = (pathNormalization: PathNormalization, target: string) => {
    const reading = readPathIn(target, { ...defaultMesh, profile: 'istio', pathNormalization })
    return reading.ok ? `${reading.forwarded} ${reading.query}`.trim() : reading.status
  }

  it.each([
    ['none', '/a/../%61//b\\c', '/a/../%61//b\\c'],
    ['base', '/a/../%61//b\\c', '/a//b/c'],
    ['merge-slashes', '/a/../%61//b\\c', '/a/b/c'],
    ['base', '/app//../admin', '/app/admin'],
    ['merge-slashes', '/app/\\/\\/\\admin', '/app/admin'],
    ['base', '/x/..%2fadmin', '/x/..%2fadmin'],
    ['decode-and-merge-slashes', '/x/..%2fadmin', '/admin'],
    ['decode-and-merge-slashes', '/%252Fadmin', '/%252Fadmin'],
    ['base', '/a?b#c', '/a ?b'],
    ['base', '/a#b?access_token=c', '/a'],
    ['base', '/a%00', 400],
    ['none', '/a%00', 400],
    ['base', 'a', 400],
    ['base', '#/a', 400],
    ['none', '/a b', 400],
    ['none', '/a\nb', 400],
    ['base', '/a?b\x7f', 400],
  ] as const)('%s: %s is %s', (level, target, forwarded) => {
    expect(at(level, target)).toBe(forwarded)
  })
})
