import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { describe, expect, it } from 'vitest'
import { createIssuers } from '../../client/issuers.ts'
import { explain } from '../../spiffe/errors.ts'
import { createFakeClock } from '../support/fake-clock.ts'

function jwks(kid: string): string {
  const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return JSON.stringify({ keys: [{ ...publicKey.export({ format: 'jwk' }), kid, use: 'sig' }] })
}

/** Answers with what it is told to; undefined is a 503. */
async function startIssuer(first: string | undefined) {
  let answer = first
  let asked = 0
  const server = createServer((_, response) => {
    asked++
    response.statusCode = answer === undefined ? 503 : 200
    response.end(answer ?? '')
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  const port = typeof address === 'object' ? address?.port : undefined
  return {
    uri: `http://127.0.0.1:${port}/keys`,
    say(text: string | undefined) {
      answer = text
    },
    asked: () => asked,
    async [Symbol.asyncDispose]() {
      server.close()
      server.closeAllConnections()
      await once(server, 'close')
    },
  }
}

async function load(uri: string, signal: AbortSignal): Promise<string> {
  const response = await fetch(uri, { signal })
  if (!response.ok) throw new Error(`status ${response.status}`)
  return response.text()
}

function issuersFor(clock: ReturnType<typeof createFakeClock>) {
  const troubles: string[] = []
  const issuers = createIssuers({
    load,
    clock,
    onTrouble: (uri) => troubles.push(uri),
    random: () => 0.5,
  })
  return { issuers, troubles }
}

const minute = 60_000
const patience = { timeout: 20_000 }

/** What is seen a few minutes on: fetches take real time, waits do not. */
async function later<T>(clock: ReturnType<typeof createFakeClock>, look: () => T): Promise<T> {
  await clock.advance(5 * minute)
  return look()
}

describe('keys of token issuers', () => {
  it('are had after a fetch, and follow a rotation', async () => {
    await using issuer = await startIssuer(jwks('one'))
    const clock = createFakeClock()
    const { issuers } = issuersFor(clock)
    await using _ = issuers
    expect(issuers.source(issuer.uri)).toBeUndefined()
    issuers.follow([issuer.uri])
    await expect.poll(() => issuers.source(issuer.uri)?.[0]?.keyId, patience).toBe('one')
    issuer.say(jwks('two'))
    await expect
      .poll(() => later(clock, () => issuers.source(issuer.uri)?.[0]?.keyId), patience)
      .toBe('two')
  })

  it('row 131: are none while their address does not answer, and are had once it does', async () => {
    await using issuer = await startIssuer(undefined)
    const clock = createFakeClock()
    const { issuers, troubles } = issuersFor(clock)
    await using _ = issuers
    issuers.follow([issuer.uri])
    await expect.poll(() => troubles.length, patience).toBe(1)
    expect(issuers.source(issuer.uri)).toBeUndefined()
    issuer.say(jwks('late'))
    await expect
      .poll(() => later(clock, () => issuers.source(issuer.uri)?.[0]?.keyId), patience)
      .toBe('late')
  })

  it('stay through an outage of a day, and no longer', async () => {
    await using issuer = await startIssuer(jwks('kept'))
    const clock = createFakeClock()
    const { issuers } = issuersFor(clock)
    await using _ = issuers
    issuers.follow([issuer.uri])
    await expect.poll(() => issuers.source(issuer.uri)?.length, patience).toBe(1)
    issuer.say('{"keys":[]}')
    await clock.advance(23 * 60 * minute)
    expect(issuers.source(issuer.uri)?.length).toBe(1)
    await clock.advance(62 * minute)
    expect(issuers.source(issuer.uri)).toBeUndefined()
  })

  it('of an address that no policy names any more are forgotten', async () => {
    await using issuer = await startIssuer(jwks('gone'))
    const { issuers } = issuersFor(createFakeClock())
    await using _ = issuers
    issuers.follow([issuer.uri])
    await expect.poll(() => issuers.source(issuer.uri)?.length, patience).toBe(1)
    issuers.follow([])
    expect(issuers.source(issuer.uri)).toBeUndefined()
    expect(issuer.asked()).toBe(1)
  })

  it('in a file are looked at every few seconds; the same ones stay the same', async () => {
    const uri = 'file:///keys.json'
    let text = jwks('one')
    let looks = 0
    const clock = createFakeClock()
    const troubles: string[] = []
    await using issuers = createIssuers({
      clock,
      async load() {
        looks++
        return text
      },
      onTrouble: (_, error) => troubles.push(explain(error)),
      random: () => 0.5,
    })
    const known = () => issuers.source(uri)
    issuers.follow([uri])
    await expect.poll(known, patience).toMatchObject([{ keyId: 'one' }])
    const first = known()
    await clock.advance(20_000)
    expect(looks).toBe(5)
    expect(known()).toBe(first)
    text = '{"keys":[], "secret": '
    await clock.advance(60_000)
    text = jwks('two').replace('}', ',"kid":"two"}')
    await clock.advance(60_000)
    // each reason once, however often it was looked
    expect(troubles).toEqual([
      'no usable JWKS: no JSON',
      'no usable JWKS: a member of an object twice',
    ])
    expect(known()).toBe(first)
    text = jwks('two')
    await clock.advance(6000)
    expect(known()).toMatchObject([{ keyId: 'two' }])
    text = ''
    await clock.advance(23 * 60 * minute)
    expect(known()?.length).toBe(1)
    await clock.advance(62 * minute)
    expect(known()).toBeUndefined()
    expect(troubles.length).toBe(3)
  })
})
