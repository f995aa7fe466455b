// Tokens of callers at a sidecar: 401 for one that does not hold, 403 for one that is not enough, keys
// fetched over TLS, and what of a token goes on to the workload.

import { createServer } from 'node:https'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { createIssuers } from '../../client/issuers.ts'
import type { MeshState } from '../../decisions/mesh.ts'
import { compile } from '../../policies/compile.ts'
import { jwksUrisOf, readPolicies } from '../../policies/language/read.ts'
import type { JwksSource } from '../../policies/tokens/authenticate.ts'
import { fetchBounded } from '../../runtime/fetch.ts'
import { createFakeClock } from '../support/fake-clock.ts'
import { stateOf } from '../support/mesh.ts'
import { policyText } from '../support/policy-text.ts'
import { askPayments, inboundTo, openSession, payments, sourceOf } from '../support/shop.ts'
import { type App, listening, type Sidecar, startApp, startSidecar } from '../support/sidecar.ts'
import { makeTestTls, type TestTls } from '../support/test-tls.ts'
import { createTestIssuer, type TestIssuer } from '../support/token-issuer.ts'

const source = sourceOf(payments)

const name = 'https://issuer.example'
const cart = 'system:serviceaccount:shop:cart'
let issuer: TestIssuer
let stranger: TestIssuer
let app: App
let sidecar: Sidecar
let tls: TestTls
/** request line and raw header fields of what reached the workload */
let seen: { line: string; headers: readonly string[] }[] = []

beforeAll(async () => {
  issuer = await createTestIssuer(name, { alg: 'ES256' })
  stranger = await createTestIssuer(name, { alg: 'ES256' })
  tls = await makeTestTls()
  app = await startApp(({ method, url, rawHeaders: headers }, response) => {
    seen.push({ line: `${method} ${url}`, headers })
    response.end('from the workload')
  })
  sidecar = await startSidecar({ inbound: [inboundTo(app.port)] }, { source, state: stateOf('[]') })
})
afterAll(async () => {
  for (const it of [sidecar, app]) await it[Symbol.asyncDispose]()
})
beforeEach(() => {
  seen = []
})
afterEach(() => sidecar.mesh.put(stateOf('[]')))

/** Whoever has a token of that subject may pass; `rule` is how tokens are accepted. */
function textOf(rule: string): string {
  return `apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: { name: tokens, namespace: shop }
spec: { jwtRules: [{ issuer: "${name}", ${rule} }] }
---
${policyText(`[{ from: [{ source: { requestPrincipals: ["${name}/${cart}"] } }] }]`)}`
}

function stateFor(rule: string, jwks: JwksSource = () => undefined): MeshState {
  const documents = readPolicies([{ name: 'f.yaml', text: textOf(rule) }])
  return { ...stateOf('[]'), policies: compile(documents, { jwks }) }
}

const inline = (more = '') => stateFor(`jwks: '${issuer.jwks}'${more}`)

function ask(path: string, ...lines: readonly string[]): Promise<string> {
  const all = [`GET ${path} HTTP/1.1`, 'Host: shop', 'Connection: close', ...lines, '', '']
  return askPayments(sidecar.port, all.join('\r\n'))
}

const statusOf = (answer: string) => Number(answer.slice('HTTP/1.1 '.length).slice(0, 3))
const bearer = (token: string) => `Authorization: Bearer ${token}`
const askWith = async (token: string) => statusOf(await ask('/', bearer(token)))

describe('a token at the door', () => {
  it('that holds and is enough passes; one that holds and is not, and none, are denied', async () => {
    sidecar.mesh.put(inline())
    expect(await askWith(await issuer.token())).toBe(200)
    expect(await askWith(await issuer.token({ sub: 'somebody else' }))).toBe(403)
    expect(statusOf(await ask('/'))).toBe(403)
    expect(seen.length).toBe(1)
  })

  it('that does not hold is refused with 401 and a challenge, whatever policies allow', async () => {
    sidecar.mesh.put(inline(', audiences: [istio-ca]'))
    const past = Math.floor(Date.now() / 1000) - 3600
    const bad = {
      'of an issuer nobody named': await issuer.token({ iss: 'https://other.example' }),
      'that has expired': await issuer.token({ exp: past }),
      'by another key of the same name': await stranger.token(),
      'for another audience': await issuer.token({ aud: 'other' }),
      'that is none': 'a.b.c',
    }
    for (const [what, token] of Object.entries(bad)) {
      const answer = await ask('/', bearer(token))
      expect(answer, what).toMatch(/^HTTP\/1\.1 401 Unauthorized\r\n/)
      expect(answer, what).toMatch(/\r\nwww-authenticate: Bearer error="invalid_token"\r\n/)
      expect(answer, what).not.toContain(token)
    }
    expect(seen).toEqual([])
  })

  it('is refused to HTTP/2 with 401, to gRPC with UNAUTHENTICATED', async () => {
    sidecar.mesh.put(inline())
    const session = await openSession(sidecar.port)
    const answerTo = async (headers: Readonly<Record<string, string>>) => {
      const stream = session.request({ ':path': '/', authorization: 'Bearer a.b.c', ...headers })
      const { promise, resolve } = Promise.withResolvers<object>()
      stream.once('response', resolve)
      stream.resume()
      return await promise
    }
    expect(await answerTo({})).toMatchObject({
      ...{ ':status': 401, 'www-authenticate': 'Bearer error="invalid_token"' },
    })
    const grpc = { ':method': 'POST', 'content-type': 'application/grpc', te: 'trailers' }
    expect(await answerTo(grpc)).toMatchObject({ ':status': 200, 'grpc-status': '16' })
    session.destroy()
    expect(seen).toEqual([])
  })
})

describe('what goes on to the workload', () => {
  const valuesOf = (field: string) =>
    seen.flatMap(({ headers }) =>
      headers.flatMap((it, i) => (it.toLowerCase() === field ? [headers[i + 1]] : [])),
    )

  it('is no token, in the header or among the parameters, unless that is said', async () => {
    const token = await issuer.token()
    sidecar.mesh.put(inline())
    await ask('/', bearer(token))
    await ask(`/a?x=1&access_token=${token}&y=2`)
    expect(valuesOf('authorization')).toEqual([])
    expect(seen.map(({ line }) => line)).toEqual(['GET /', 'GET /a?x=1&y=2'])
    sidecar.mesh.put(inline(', forwardOriginalToken: true'))
    await ask('/', bearer(token))
    expect(valuesOf('authorization')).toEqual([`Bearer ${token}`])
  })

  it('are the claims that policies name, and none that a caller wrote there', async () => {
    const outputs = 'outputClaimToHeaders: [{ header: x-sub, claim: sub }]'
    sidecar.mesh.put(inline(`, outputPayloadToHeader: x-payload, ${outputs}`))
    await ask('/', bearer(await issuer.token()), 'X-Sub: root', 'X-Payload: e30')
    expect(valuesOf('x-sub')).toEqual([cart])
    const [payload = ''] = valuesOf('x-payload')
    expect(JSON.parse(Buffer.from(payload, 'base64url').toString())).toMatchObject({ sub: cart })
    // without a token nothing is told, and nothing is believed
    const open = readPolicies([
      { name: 'a.yaml', text: textOf(`jwks: '${issuer.jwks}', ${outputs}`) },
      { name: 'b.yaml', text: policyText('[{}]', { name: 'open' }) },
    ])
    sidecar.mesh.put({ ...stateOf('[]'), policies: compile(open) })
    seen = []
    expect(statusOf(await ask('/', 'x-sub: root'))).toBe(200)
    expect(valuesOf('x-sub')).toEqual([])
  })
})

describe('keys that are fetched', () => {
  const minute = 60_000
  const day = 24 * 60 * minute
  const patience = { timeout: 30_000 }

  /** A JWKS server over TLS that says what it is told, 503 for undefined; and a sidecar that asks it. */
  async function startKeys(first: string | undefined) {
    let answer = first
    const web = createServer({ cert: tls.cert, key: tls.key }, (_, response) => {
      response.statusCode = answer === undefined ? 503 : 200
      response.end(answer ?? '')
    })
    const server = await listening(web)
    const clock = createFakeClock(Date.now())
    const troubles: unknown[] = []
    const issuers = createIssuers({
      ...{ clock, random: () => 0.5 },
      onTrouble: (_, error) => troubles.push(error),
      load: async (uri, signal) =>
        String(
          await fetchBounded(uri, {
            ...{ roots: tls.ca, privateAddress: true, timeout: 5000, most: 65_536, signal },
          }),
        ),
    })
    const state = stateFor(`jwksUri: "https://localhost:${server.port}/keys"`, issuers.source)
    issuers.follow(jwksUrisOf(state.policies.documents))
    sidecar.mesh.put(state)
    return {
      ...{ clock, troubles },
      say(text: string | undefined) {
        answer = text
      },
      async [Symbol.asyncDispose]() {
        await issuers[Symbol.asyncDispose]()
        await server[Symbol.asyncDispose]()
      },
    }
  }

  it('row 131: are none while their server is down: every token is refused, nothing else is', async () => {
    await using keys = await startKeys(undefined)
    await expect.poll(() => keys.troubles.length, patience).toBe(1)
    const token = await issuer.token()
    expect(await askWith(token)).toBe(401)
    // without a token it is a question of policy
    expect(statusOf(await ask('/'))).toBe(403)
    keys.say(issuer.jwks)
    const later = async () => {
      await keys.clock.advance(minute)
      return await askWith(token)
    }
    await expect.poll(later, patience).toBe(200)
  })

  it('are followed when they change: a token of a key that is gone is refused, though it was verified', async () => {
    await using keys = await startKeys(issuer.jwks)
    const [token, next] = [await issuer.token(), await stranger.token()]
    await expect.poll(() => askWith(token), patience).toBe(200)
    expect(await askWith(next)).toBe(401)
    keys.say(stranger.jwks)
    const later = async () => {
      await keys.clock.advance(25 * minute)
      return [await askWith(token), await askWith(next)]
    }
    await expect.poll(later, patience).toEqual([401, 200])
  })

  it('count for a day when they cannot be had any more', async () => {
    await using keys = await startKeys(issuer.jwks)
    const token = await issuer.token()
    await expect.poll(() => askWith(token), patience).toBe(200)
    keys.say(undefined)
    await keys.clock.advance(day - 25 * minute)
    expect(await askWith(token)).toBe(200)
    await keys.clock.advance(50 * minute)
    expect(await askWith(token)).toBe(401)
  })
})
