// What is fetched from others, and what is not (invariant 9).
import type { RequestListener } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { beforeAll, expect, test } from 'vitest'
import { addressProblem, type FetchOptions, fetchBounded } from '../../runtime/fetch.ts'
import { explain } from '../../spiffe/errors.ts'
import { makeTestTls, type TestTls } from '../support/test-tls.ts'

let tls: TestTls
beforeAll(async () => {
  tls = await makeTestTls()
})

/** What is fetched from a server that answers so, or the error in words. */
async function outcome(
  answer: RequestListener,
  more: Partial<FetchOptions> = {},
  host = 'localhost',
) {
  let asked = 0
  const server = createServer(tls, (request, response) => {
    asked++
    answer(request, response)
  })
  server.listen(0, '127.0.0.1')
  await new Promise<void>((resolve) => server.once('listening', resolve))
  const { port } = server.address() as AddressInfo
  const options = { roots: tls.ca, privateAddress: true, timeout: 20_000, most: 100, ...more }
  try {
    const body = await fetchBounded(`https://${host}:${port}/keys`, options)
    return { body: body.toString(), asked }
  } catch (error) {
    return { error: explain(error), asked }
  } finally {
    server.closeAllConnections()
    server.close()
  }
}

test('the body of an answer of status 200', async () => {
  expect(await outcome((_, response) => response.end('hello'))).toEqual({ body: 'hello', asked: 1 })
})

test('an address in the URL is connected to as a name is', async () => {
  const { body } = await outcome((_, response) => response.end('x'), {}, '127.0.0.1')
  expect(body).toBe('x')
})

test('no redirect is followed', async () => {
  const { error, asked } = await outcome((_, response) => {
    response.writeHead(302, { location: '/elsewhere' }).end()
  })
  expect(error).toMatch(/^cannot fetch https:.*: the answer is 302, not 200$/)
  expect(asked).toBe(1)
})

test('no more than allowed is read, whatever length is promised', async () => {
  const endless: RequestListener = (_, response) => {
    const more = () => {
      while (response.write('x'.repeat(50)));
    }
    response.on('drain', more)
    more()
  }
  expect(await outcome(endless)).toMatchObject({ error: expect.stringContaining('over 100 bytes') })
  expect(await outcome((_, response) => response.end('x'.repeat(100)))).toMatchObject({
    body: 'x'.repeat(100),
  })
})

test('an answer that does not come is not waited for', async () => {
  const { error } = await outcome(() => {}, { timeout: 50 })
  expect(error).toMatch(/aborted|timeout/i)
})

test('a server that nobody vouches for is not asked', async () => {
  const other = await makeTestTls()
  const { error, asked } = await outcome((_, response) => response.end('x'), { roots: other.ca })
  expect(error).toMatch(/unable to verify|self.signed|signature/i)
  expect(asked).toBe(0)
})

test.each(['localhost', '127.0.0.1'])('private addresses have to be allowed: %s', async (host) => {
  const never = await outcome((_, response) => response.end('x'), { privateAddress: false }, host)
  expect(never).toEqual({
    asked: 0,
    error: expect.stringMatching(
      /is on a private network; set privateAddress: true beside this URL to allow it$/,
    ),
  })
})

test('only https', async () => {
  const options = { privateAddress: true, timeout: 1000, most: 100 }
  for (const url of ['http://localhost/', 'file:///etc/passwd', 'nonsense'])
    await expect(fetchBounded(url, options)).rejects.toMatchObject({ code: 'ERR_UNAVAILABLE' })
})

const addresses = [
  ['8.8.8.8', true, true],
  ['2001:4860:4860::8888', true, true],
  ['10.1.2.3', true, false],
  ['172.31.0.1', true, false],
  ['192.168.0.1', true, false],
  ['127.0.0.1', true, false],
  ['::1', true, false],
  ['fd12::1', true, false],
  ['::ffff:10.0.0.1', true, false],
  ['64:ff9b::a00:1', true, false],
  ['169.254.169.254', false, false],
  ['::ffff:169.254.169.254', false, false],
  ['64:ff9b::a9fe:a9fe', false, false],
  ['fe80::1', false, false],
  ['fd00:ec2::254', false, false],
  ['0.0.0.0', false, false],
  ['::', false, false],
  ['224.0.0.1', false, false],
  ['255.255.255.255', false, false],
  ['ff02::1', false, false],
] as const
test.each(addresses)('%s: allowed inside %s, outside %s', (address, inside, outside) => {
  expect(addressProblem(address, { privateAddress: true }) === undefined).toBe(inside)
  expect(addressProblem(address, { privateAddress: false }) === undefined).toBe(outside)
})
