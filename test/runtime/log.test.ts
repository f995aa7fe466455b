import { describe, expect, it } from 'vitest'
import { createLog } from '../../runtime/log.ts'
import { sealingSecret } from '../../runtime/sealed.ts'
import { IdentityError } from '../../spiffe/errors.ts'

function logged(write: (log: ReturnType<typeof createLog>) => void, level = 'info') {
  const lines: string[] = []
  const destination = { write: (line: string) => void lines.push(line) }
  write(createLog({ name: 'test', level, destination }))
  return lines.map((line): Record<string, unknown> => JSON.parse(line))
}

describe('the log', () => {
  it('is one JSON object per event, with program, level and time', () => {
    const [line, ...more] = logged((log) => log.info({ port: 5 }, 'ready'))
    expect(more).toEqual([])
    expect(line).toMatchObject({ level: 'info', name: 'test', port: 5, msg: 'ready' })
    expect(String(line?.time)).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
    expect(Object.keys(line ?? {}).sort()).toEqual(['level', 'msg', 'name', 'port', 'time'])
  })

  it('keeps silent below its level', () => {
    expect(logged((log) => log.info('no'), 'warn')).toEqual([])
  })

  it('shows no secret, at the top or one level down', () => {
    const names = ['key', 'token', 'passphrase', 'csr', 'pem', 'privateKey', 'joinToken', 'secret']
    for (const name of names) {
      const [line] = logged((log) => {
        log.info({ [name]: 'hunter2', inside: { [name]: 'hunter2' }, other: 'shown' }, 'x')
      })
      expect(line).toMatchObject({ [name]: '[redacted]', inside: { [name]: '[redacted]' } })
      expect(JSON.stringify(line)).not.toContain('hunter2')
      expect(line?.other).toBe('shown')
    }
    const [line] = logged((log) => log.info({ unlock: sealingSecret(Buffer.from('hunter2')) }))
    expect(line?.unlock).toBe('[secret]')
  })

  it('says of our errors code, message and causes, of others the stack too', () => {
    const cause = Object.assign(new Error('disk full'), { code: 'ENOSPC' })
    const error = new IdentityError('ERR_STORE', 'the store failed', { cause })
    const [ours, bug, text] = logged((log) => {
      log.error({ err: error }, 'x')
      log.error({ err: new TypeError('oops') }, 'x')
      log.error({ err: 'just text' }, 'x')
    })
    expect(ours?.err).toEqual({
      code: 'ERR_STORE',
      message: 'the store failed',
      cause: { message: 'disk full' },
    })
    expect(bug?.err).toMatchObject({ message: 'oops', stack: expect.stringContaining('log.test') })
    expect(text?.err).toEqual({ message: 'just text' })
  })
})
