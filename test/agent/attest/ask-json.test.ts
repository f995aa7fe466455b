// Questions to services of this node: what is refused, and what an answer may cost.
import type { RequestListener } from 'node:http'
import { expect, it } from 'vitest'
import { askJson, type Question } from '../../../agent/attest/ask-json.ts'
import { never, serving } from './recorded.ts'

const ask = (url: string, more: Partial<Question> = {}) =>
  askJson({ whom: 'the service', to: { url }, timeout: 5000, most: 1000, signal: never, ...more })

async function answered(answer: RequestListener, more: Partial<Question> = {}) {
  await using server = await serving(answer)
  return await ask(`${server.url}/pods`, more)
}

it('an answer is parsed; none, by 404, is none', async () => {
  expect(await answered((_, response) => response.end('{"a":1}'))).toEqual({ a: 1 })
  expect(await answered((_, response) => response.writeHead(404).end('{}'))).toBeUndefined()
})

it('redirects are not followed, other answers are failures', async () => {
  const redirect: RequestListener = ({ url }, response) => {
    expect(url).toBe('/pods')
    response.writeHead(302, { location: '/elsewhere' }).end()
  }
  await expect(answered(redirect)).rejects.toThrow('the answer is 302, not 200')
  const forbidden = answered((_, response) => response.writeHead(403).end('secret'))
  await expect(forbidden).rejects.toMatchObject({
    code: 'ERR_UNAVAILABLE',
    message: 'cannot ask the service: the answer is 403, not 200',
  })
})

it('an answer that is too large, or never ends, is given up', async () => {
  const large = answered((_, response) => response.end('x'.repeat(2000)))
  await expect(large).rejects.toThrow('the answer is over 1000 bytes')
  const slow = answered((_, response) => response.write('{'), { timeout: 50 })
  await expect(slow).rejects.toThrow('timeout')
})

it('what was answered is in no message', async () => {
  const error = await answered((_, response) => response.end('{"PASSWORD": secret')).then(
    () => undefined,
    (reason: unknown) => reason,
  )
  expect(error).toMatchObject({ message: 'cannot ask the service: the answer is not JSON' })
  expect(error instanceof Error && error.cause).toBeUndefined()
})

it('addresses that nobody serves at, and https without authorities, are refused', async () => {
  await expect(ask('http://169.254.169.254/pods')).rejects.toThrow('never fetched from')
  await expect(ask('https://127.0.0.1:1/pods')).rejects.toThrow('no authorities')
})
