import { describe, expect, it } from 'vitest'
import { explain, hasCode, IdentityError, meaningOf, meanings } from '../../spiffe/errors.ts'

describe('IdentityError', () => {
  it('carries code, cause, fields and when to retry', () => {
    const cause = new Error('disk full')
    const fields = [{ field: 'entries[0].id', problem: 'is missing' }]
    const error = new IdentityError('ERR_STORE', 'cannot save', { cause, fields, retryAfter: 5 })
    expect(error).toMatchObject({
      name: 'IdentityError',
      code: 'ERR_STORE',
      message: 'cannot save',
    })
    expect(error).toMatchObject({ cause, fields, retryAfter: 5 })
  })

  it('has no cause property unless there is a cause', () => {
    const error = new IdentityError('ERR_DER', 'truncated')
    expect('cause' in error).toBe(false)
    expect(error).toMatchObject({ fields: [], retryAfter: undefined })
  })

  it('is told by its codes', () => {
    const error = new IdentityError('ERR_DENIED', 'no')
    expect(hasCode(error)).toBe(true)
    expect(hasCode(error, 'ERR_DER', 'ERR_DENIED')).toBe(true)
    expect(hasCode(error, 'ERR_DER')).toBe(false)
    expect(hasCode(new TypeError('no'))).toBe(false)
    expect(hasCode({ code: 'ERR_DENIED' }, 'ERR_DENIED')).toBe(false)
  })

  it('explains itself with its causes in one line', () => {
    const inner = new Error('inner', { cause: 'a string' })
    const error = new IdentityError('ERR_STORE', 'outer', { cause: inner })
    expect(explain(error)).toBe('outer: inner: a string')
    expect(explain(undefined)).toBe('undefined')
  })
})

describe('the table of meanings', () => {
  it('answers for each code', () => {
    expect(meaningOf('ERR_UNTRUSTED')).toEqual({ http: 401, grpc: 16, retry: false })
    expect(meaningOf('ERR_UNAVAILABLE')).toEqual({ http: 503, grpc: 14, retry: true })
  })

  it('holds only known numbers, and no retry where the caller is wrong', () => {
    for (const [code, { http, grpc, retry }] of Object.entries(meanings)) {
      expect(grpc, code).toBeGreaterThan(0)
      expect(grpc, code).toBeLessThanOrEqual(16)
      expect(http, code).toBeGreaterThanOrEqual(400)
      expect(http, code).toBeLessThan(600)
      if (grpc === 3 || grpc === 7) expect(retry, code).toBe(false)
    }
  })
})
