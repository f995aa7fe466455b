import { createPublicKey } from 'node:crypto'
import { connect, type TLSSocket } from 'node:tls'
import { Code, ConnectError } from '@connectrpc/connect'
import { describe, expect, it } from 'vitest'
import { makeDevCa } from '../../certs-dev/authority.ts'
import { subjectKeyIdentifier } from '../../certs-dev/extensions.ts'
import { contextOptions } from '../../client/credential.ts'
import { peerIdOf } from '../../client/peer.ts'
import { connectTls } from '../../client/tls-connect.ts'
import { startTlsServer, type TlsServerOptions } from '../../client/tls-server.ts'
import { pickByHint } from '../../client/x509-source.ts'
import { systemClock } from '../../runtime/clock.ts'
import { bundleOf, bundleToPem } from '../../spiffe/bundle.ts'
import { explain } from '../../spiffe/errors.ts'
import { parseSpiffeId, parseTrustDomain, type SpiffeId } from '../../spiffe/id.ts'
import { matchId, matchMemberOf } from '../../spiffe/match.ts'
import { createFakeClock } from '../support/fake-clock.ts'
import { makeTestAuthority } from '../support/mesh.ts'
import { peerOptions } from '../support/sidecar.ts'
import { type MovableSource, nextOf, textOf, tlsSource } from './tls-source.ts'

const td = makeTestAuthority('td')
const other = makeTestAuthority('other')
const server = parseSpiffeId('spiffe://td/server')
const client = parseSpiffeId('spiffe://td/client')
const hour = 3_600_000

interface Met {
  readonly socket: TLSSocket
  readonly peer: SpiffeId
}

/** Greets whom it lets in; what it refused and why is kept. */
async function greeter(source: MovableSource, options: Partial<TlsServerOptions> = {}) {
  const refusals: string[] = []
  const met: Met[] = []
  let refused = Promise.withResolvers<void>()
  const own = await startTlsServer(
    source,
    {
      host: '127.0.0.1',
      port: 0,
      accept: matchId(client),
      onRefusal(reason) {
        refusals.push(explain(reason))
        refused.resolve()
      },
      ...options,
    },
    (socket, peer) => {
      met.push({ socket, peer })
      socket.write(`hello ${peer}`)
    },
  )
  return {
    ...own,
    met,
    refusals,
    async refusal() {
      await refused.promise
      refused = Promise.withResolvers()
      return refusals.at(-1)
    },
  }
}

const at = (port: number, accept = matchId(server)) => ({ host: '127.0.0.1', port, accept })
const serverSource = () => tlsSource(td.issue(server), td.bundle)
const clientSource = () => tlsSource(td.issue(client), td.bundle)
const ended = (socket: TLSSocket) =>
  socket.closed ? undefined : new Promise((resolve) => socket.once('close', resolve))

describe('mutual TLS', () => {
  it('lets two workloads speak, each knowing the other', async () => {
    await using its = await greeter(serverSource())
    const { socket, peer } = await connectTls(clientSource(), at(its.port))
    expect(peer).toBe(server)
    expect(peerIdOf(socket)).toBe(server)
    expect(await nextOf(socket)).toBe('hello spiffe://td/client')
    const [met] = its.met
    expect(met && peerIdOf(met.socket)).toBe(client)
    expect(socket.getProtocol()).toBe('TLSv1.3')
    socket.end('bye')
    expect(met && (await textOf(met.socket))).toBe('bye')
    expect(its.refusals).toEqual([])
  })

  it('refuses a client whom the matcher does not accept, and gives its bytes to nobody', async () => {
    await using its = await greeter(serverSource())
    const stranger = tlsSource(td.issue('spiffe://td/stranger'), td.bundle)
    const { socket } = await connectTls(stranger, at(its.port))
    socket.write('let me in')
    expect(await textOf(socket)).toBe('')
    expect(its.met).toEqual([])
    expect(its.refusals).toEqual(['the peer is spiffe://td/stranger, expected spiffe://td/client'])
  })

  it('refuses a server whom the matcher does not accept, before anything is sent', async () => {
    await using its = await greeter(serverSource(), { accept: () => undefined })
    const wanted = matchId(parseSpiffeId('spiffe://td/other-server'))
    await expect(connectTls(clientSource(), at(its.port, wanted))).rejects.toMatchObject({
      code: 'ERR_UNTRUSTED',
      message: 'the peer is spiffe://td/server, expected spiffe://td/other-server',
    })
  })

  it('has no matcher that nobody wrote', async () => {
    const why = 'accept has to be a matcher, such as matchId(id) or matchMemberOf(domain)'
    const nothing = JSON.parse('{"host":"127.0.0.1","port":0}')
    await expect(startTlsServer(serverSource(), nothing, () => {})).rejects.toThrow(why)
    await expect(connectTls(clientSource(), nothing)).rejects.toThrow(why)
  })

  it('X5-20 does not take a root of another trust domain for one of its own', async () => {
    const federated = [td.bundle, other.bundle] as const
    const forged = (id: SpiffeId) => tlsSource(other.issue(id), ...federated)
    await using its = await greeter(tlsSource(td.issue(server), ...federated))
    const { socket } = await connectTls(forged(client), at(its.port))
    expect(await textOf(socket)).toBe('')
    expect(its.met).toEqual([])
    expect(its.refusals[0]).toContain('spiffe://td/client: ')

    await using forger = await greeter(forged(server))
    const own = tlsSource(td.issue(client), ...federated)
    await expect(connectTls(own, at(forger.port))).rejects.toMatchObject({
      code: 'ERR_UNTRUSTED',
      message: expect.stringContaining('spiffe://td/server: '),
    })
    // the very same roots hold for those whom they are for
    const friend = tlsSource(other.issue('spiffe://other/friend'), ...federated)
    await using open = await greeter(friend, { accept: matchMemberOf(parseTrustDomain('td')) })
    const accept = matchMemberOf(parseTrustDomain('other'))
    expect((await connectTls(own, at(open.port, accept))).peer).toBe('spiffe://other/friend')
  })

  it('lets its own in although federated roots bear name and key identifier of its own', async () => {
    const [root] = td.bundle.authorities
    const spki = Buffer.from(root?.publicKey ?? [])
    const publicKey = createPublicKey({ key: spki, format: 'der', type: 'spki' })
    const copies = [1, 1000].map((hours) => {
      const { certificate } = makeDevCa({
        name: 'root of td',
        notBefore: Date.now() - hour,
        notAfter: Date.now() + hours * hour,
        extensions: { subjectKeyIdentifier: subjectKeyIdentifier(publicKey) },
      })
      return bundleOf(parseTrustDomain(`copy-${hours}`), [certificate])
    })
    await using its = await greeter(tlsSource(td.issue(server), td.bundle, ...copies))
    const ours = tlsSource(td.issue(client), td.bundle, ...copies)
    expect(contextOptions(ours, { clock: systemClock }).ca).toEqual([bundleToPem(td.bundle)])
    const { socket, peer } = await connectTls(ours, at(its.port))
    expect(peer).toBe(server)
    expect(await nextOf(socket)).toBe(`hello ${client}`)
  })

  it('refuses who shows nothing, something expired, or something of nobody', async () => {
    await using its = await greeter(serverSource())
    const nobody = makeTestAuthority('td')
    const past = { notBefore: Date.now() - 2 * hour, notAfter: Date.now() - hour }
    for (const svid of [undefined, td.issue(client, past), nobody.issue(client)]) {
      const options = peerOptions(its.port, svid, { authority: td, id: server })
      const socket = connect(options)
      socket.on('error', () => {})
      expect(await textOf(socket)).toBe('')
      await its.refusal()
    }
    expect(its.met).toEqual([])
    await using expired = await greeter(tlsSource(td.issue(server, past), td.bundle), {
      clock: createFakeClock(Date.now() - 2 * hour + 60_000),
    })
    await expect(connectTls(clientSource(), at(expired.port))).rejects.toMatchObject({
      code: 'ERR_UNTRUSTED',
    })
    const stranger = tlsSource(nobody.issue(client), nobody.bundle)
    await expect(connectTls(stranger, at(its.port))).rejects.toMatchObject({
      code: 'ERR_UNTRUSTED',
      message: `127.0.0.1:${its.port} is not trusted`,
    })
  })

  it('says when nobody is there', async () => {
    const its = await greeter(serverSource())
    await its[Symbol.asyncDispose]()
    await expect(connectTls(clientSource(), at(its.port))).rejects.toMatchObject({
      code: 'ERR_UNAVAILABLE',
      message: `cannot reach 127.0.0.1:${its.port}`,
    })
    const reason = new Error('enough')
    const signal = AbortSignal.abort(reason)
    await expect(connectTls(clientSource(), { ...at(1), signal })).rejects.toBe(reason)
  })

  it('says why there is no identity to begin with', async () => {
    const why = new ConnectError('no identity issued', Code.PermissionDenied)
    const never: MovableSource = {
      ...clientSource(),
      ready: (signal) => Promise.reject(signal.reason ?? new Error('in vain')),
      trouble: () => why,
    }
    await expect(connectTls(never, at(1))).rejects.toMatchObject({
      code: 'ERR_NO_IDENTITY',
      message: 'no identity issued',
      cause: why,
    })
    const silent = { ...never, trouble: () => undefined }
    await expect(connectTls(silent, at(1))).rejects.toMatchObject({
      code: 'ERR_UNAVAILABLE',
      message: 'no answer from the agent',
    })
  })

  it('never resumes a session', async () => {
    await using its = await greeter(serverSource())
    for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
      const options = peerOptions(its.port, td.issue(client), { authority: td, id: server })
      const first = connect({ ...options, maxVersion })
      expect(await nextOf(first)).toBe(`hello ${client}`)
      const session = first.getSession()
      expect(first.getTLSTicket()).toBeUndefined()
      first.destroy()
      const again = connect({ ...options, maxVersion, ...(session && { session }) })
      expect(await nextOf(again)).toBe(`hello ${client}`)
      expect(again.isSessionReused()).toBe(false)
      again.destroy()
    }
  })

  it('does not let a peer become another one midway', async () => {
    await using its = await greeter(serverSource())
    const options = peerOptions(its.port, td.issue(client), { authority: td, id: server })
    const socket = connect({ ...options, maxVersion: 'TLSv1.2' })
    await nextOf(socket)
    const answered = Promise.withResolvers<unknown>()
    socket.on('error', answered.resolve)
    socket.renegotiate({}, answered.resolve)
    expect(await answered.promise).toBeInstanceOf(Error)
    socket.destroy()
  })

  it('shows the identity that was picked', async () => {
    const source = serverSource()
    const admin = { ...td.issue('spiffe://td/admin'), hint: 'admin' }
    source.putAll([td.issue(server), admin], td.bundle)
    await using its = await greeter(source, { pick: pickByHint('admin') })
    const accept = matchMemberOf(parseTrustDomain('td'))
    expect((await connectTls(clientSource(), at(its.port, accept))).peer).toBe('spiffe://td/admin')
    const pick = pickByHint('nothing')
    await expect(connectTls(source, { ...at(its.port), pick })).rejects.toMatchObject({
      code: 'ERR_NO_IDENTITY',
    })
  })
})

describe('rotation', () => {
  it('shows the new SVID in new connections at once, and leaves live ones alone', async () => {
    const ours = clientSource()
    const theirs = serverSource()
    await using its = await greeter(theirs)
    const seen = async () => {
      const connection = await connectTls(ours, at(its.port))
      await nextOf(connection.socket)
      const serial = connection.socket.getPeerCertificate().serialNumber.toLowerCase()
      const met = its.met.at(-1)?.socket.getPeerCertificate().serialNumber.toLowerCase()
      return { ...connection, serial, met }
    }
    const before = await seen()
    const [nextServer, nextClient] = [td.issue(server), td.issue(client)]
    theirs.put(nextServer, td.bundle)
    ours.put(nextClient, td.bundle)
    const after = await seen()
    expect(after.serial).toBe(nextServer.serial)
    expect(after.met).toBe(nextClient.serial)
    expect(before.serial).not.toBe(after.serial)
    before.socket.write('still here')
    expect(its.met[0] && (await nextOf(its.met[0].socket))).toBe('still here')
  })

  it('follows the roots of its trust domain', async () => {
    const next = makeTestAuthority('td')
    const both = {
      ...td.bundle,
      authorities: [...td.bundle.authorities, ...next.bundle.authorities],
    }
    const ours = clientSource()
    const theirs = serverSource()
    await using its = await greeter(theirs)
    ours.put(td.issue(client), both)
    theirs.put(td.issue(server), both)
    theirs.put(next.issue(server), both)
    const { socket } = await connectTls(ours, at(its.port))
    await nextOf(socket)
    // a root that is gone ends what lives by it: the client's certificate is of the old one
    theirs.put(next.issue(server), next.bundle)
    expect(await ended(socket)).toBe(false)
  })

  it('ends a connection when a certificate of the peer does', async () => {
    const clock = createFakeClock(Date.now())
    const source = tlsSource(td.issue(server, { notAfter: Date.now() + 10 * hour }), td.bundle)
    await using its = await greeter(source, { clock })
    const { socket } = await connectTls(clientSource(), at(its.port))
    await nextOf(socket)
    const [met] = its.met
    const broken = Promise.withResolvers<unknown>()
    met?.socket.on('error', broken.resolve)
    await clock.advance(hour / 2)
    expect(met?.socket.destroyed).toBe(false)
    await clock.advance(hour)
    await ended(socket)
    expect(explain(await broken.promise)).toContain('expired at')
    const left = await connectTls(clientSource(), { ...at(its.port), clock }).catch(explain)
    expect(left).toContain('no such identity')
  })

  it('ends connections to a trust domain that is gone, on both sides', async () => {
    const accept = matchMemberOf(parseTrustDomain('other'))
    const theirs = tlsSource(td.issue(server), td.bundle, other.bundle)
    const ours = tlsSource(other.issue('spiffe://other/client'), other.bundle, td.bundle)
    await using its = await greeter(theirs, { accept })
    const first = await connectTls(ours, at(its.port))
    await nextOf(first.socket)
    theirs.put(td.issue(server), td.bundle)
    await ended(first.socket)
    await expect(connectTls(ours, at(its.port)).then(({ socket }) => textOf(socket))).resolves.toBe(
      '',
    )
    theirs.put(td.issue(server), td.bundle, other.bundle)
    const second = await connectTls(ours, at(its.port))
    await nextOf(second.socket)
    ours.put(other.issue('spiffe://other/client'), other.bundle)
    await ended(second.socket)
    await expect(connectTls(ours, at(its.port))).rejects.toMatchObject({ code: 'ERR_UNTRUSTED' })
  })

  it('WA-15 shows and believes nothing once the identity is withdrawn', async () => {
    const ours = clientSource()
    const theirs = serverSource()
    await using its = await greeter(theirs)
    const { socket } = await connectTls(ours, at(its.port))
    await nextOf(socket)
    theirs.withdraw()
    await ended(socket)
    await expect(connectTls(ours, at(its.port))).rejects.toMatchObject({ code: 'ERR_UNAVAILABLE' })
    expect(its.refusals).toEqual(['this side has no identity at present'])
    ours.withdraw()
    await expect(connectTls(ours, at(its.port))).rejects.toMatchObject({ code: 'ERR_NO_IDENTITY' })
    theirs.put(td.issue(server), td.bundle)
    ours.put(td.issue(client), td.bundle)
    expect(await nextOf((await connectTls(ours, at(its.port))).socket)).toBe(`hello ${client}`)
  })

  it('fails no connection while both sides rotate', async () => {
    const ours = clientSource()
    const theirs = serverSource()
    await using its = await greeter(theirs)
    for (let i = 0; i < 20; i++) {
      const opening = connectTls(ours, at(its.port))
      theirs.put(td.issue(server), td.bundle)
      ours.put(td.issue(client), td.bundle)
      const { socket } = await opening
      expect(await nextOf(socket)).toBe(`hello ${client}`)
    }
    expect(its.refusals).toEqual([])
  })
})
