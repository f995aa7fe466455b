import type { AddressInfo } from 'node:net'
import Fastify from 'fastify'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { spiffe, spiffeServer } from '../../client/fastify.ts'
import { createFetch } from '../../client/fetch.ts'
import { explain } from '../../spiffe/errors.ts'
import { parseSpiffeId, parseTrustDomain } from '../../spiffe/id.ts'
import { matchId, matchMemberOf } from '../../spiffe/match.ts'
import { makeTestAuthority } from '../support/mesh.ts'
import { tlsSource } from './tls-source.ts'

const td = makeTestAuthority('td')
const other = makeTestAuthority('other')
const server = parseSpiffeId('spiffe://td/server')
const accept = matchId(server)
const source = tlsSource(td.issue(server), td.bundle, other.bundle)
const refusals: string[] = []

const app = Fastify({
  serverFactory: spiffeServer(source, {
    accept: matchMemberOf(parseTrustDomain('td')),
    onRefusal: (reason) => refusals.push(explain(reason)),
  }),
})
let origin = ''

beforeAll(async () => {
  await app.register(spiffe)
  app.get('/', async ({ spiffeId, protocol }) => ({ spiffeId, protocol }))
  const onlyAdmin = { config: { accept: matchId(parseSpiffeId('spiffe://td/admin')) } }
  app.get('/admin', onlyAdmin, async ({ spiffeId }) => `done, ${spiffeId}`)
  await app.register(async (scope) => {
    scope.post('/scope', async ({ spiffeId, body }) => ({ spiffeId, body }))
  })
  origin = await app.listen({ host: '127.0.0.1', port: 0 })
})

afterAll(() => app.close())

const as = (id: string, authority = td) =>
  createFetch(tlsSource(authority.issue(id), authority.bundle, td.bundle))

describe('the Fastify plug-in', () => {
  it('gives each request the SPIFFE ID that its sender has proven', async () => {
    using fetch = as('spiffe://td/web')
    const url = origin.replace(/^http:/, 'https:')
    const response = await fetch(url, { accept })
    expect(await response.json()).toEqual({ spiffeId: 'spiffe://td/web', protocol: 'https' })
    const json = {
      method: 'POST',
      body: '{"a":1}',
      headers: { 'content-type': 'application/json' },
    }
    const scoped = await fetch(`${url}/scope`, { accept, ...json })
    expect(await scoped.json()).toEqual({ spiffeId: 'spiffe://td/web', body: { a: 1 } })
  })

  it('lets a route accept fewer, and says nothing to others', async () => {
    const url = `${origin.replace(/^http:/, 'https:')}/admin`
    using web = as('spiffe://td/web')
    const refused = await web(url, { accept })
    expect([refused.status, await refused.json()]).toEqual([403, { error: 'access denied' }])
    using admin = as('spiffe://td/admin')
    expect(await (await admin(url, { accept })).text()).toBe('done, spiffe://td/admin')
    expect((await web(`${url}/nothing`, { accept })).status).toBe(404)
  })

  it('lets nobody in whom the server does not accept', async () => {
    using stranger = as('spiffe://other/web', other)
    const url = origin.replace(/^http:/, 'https:')
    await expect(stranger(url, { accept })).rejects.toMatchObject({ code: 'ERR_UNAVAILABLE' })
    expect(refusals).toEqual(['the peer is spiffe://other/web, not of trust domain td'])
    await expect(globalThis.fetch(origin)).rejects.toThrow()
  })

  it('rotates by itself', async () => {
    const url = origin.replace(/^http:/, 'https:')
    using fetch = as('spiffe://td/web')
    for (let i = 0; i < 5; i++) {
      source.put(td.issue(server), td.bundle)
      expect((await fetch(url, { accept })).status).toBe(200)
    }
  })

  it('denies everything on a server that is not ours', async () => {
    const plain = Fastify()
    await plain.register(spiffe)
    plain.get('/', async () => 'come in')
    expect((await plain.inject('/')).statusCode).toBe(403)
    expect((await plain.inject('/nothing')).statusCode).toBe(403)
    await plain.listen({ host: '127.0.0.1', port: 0 })
    const bound: AddressInfo | string | null = plain.server.address()
    const port = typeof bound === 'object' && bound !== null ? bound.port : 0
    expect((await globalThis.fetch(`http://127.0.0.1:${port}/`)).status).toBe(403)
    await plain.close()
  })
})
